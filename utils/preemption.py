"""Asked to stop: remember the signal, and let the step finish."""

import signal
from types import FrameType


class StopSignals:
    """Within the block, SIGINT and SIGTERM only set `received`; a second SIGINT interrupts at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "StopSignals":
        self.previous = {number: signal.signal(number, self.remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def remember(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
