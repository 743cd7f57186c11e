"""Stop and save requests by signal: each only sets a flag, and the training step finishes first."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from torch.utils.data import DataLoader

from utils.distributed.failure import lost_connection
from utils.run.broken import broken_files

DUPLICATE_SECONDS = 1.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAVE_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)  # Windows has none


class StopRequest(NamedTuple):
    """What any process was asked for: the number of the signal to stop by, or 0; and whether to save."""

    stop: int
    save: bool


class StopSignals:
    """Within the block, SIGINT and SIGTERM only set `received`, and SIGUSR1 asks for a checkpoint.

    A second SIGINT interrupts at once. Under torchrun a process may get the same Ctrl-C twice, from the terminal or the
    job's manager and from torchrun, which forwards it: there the second counts only a second later.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.save_requested = False
        self.first_interrupt: float | None = None

    def __enter__(self) -> "StopSignals":
        numbers = [number for number in (*STOP_SIGNALS, SAVE_SIGNAL) if number is not None]
        self.previous = {number: signal.signal(number, self.remember) for number in numbers}
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if self.received and error and lost_connection(error):  # torchrun ends this process because of another one
            signal.raise_signal(self.received)

    def remember(self, number: int, _frame: FrameType | None) -> None:
        if number == SAVE_SIGNAL:
            self.save_requested = True
            return
        if number == signal.SIGINT and self.first_interrupt is not None:
            pause = DUPLICATE_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
            if time.monotonic() - self.first_interrupt >= pause:
                raise KeyboardInterrupt
            return
        self.received = number
        if number == signal.SIGINT:
            self.first_interrupt = time.monotonic()

    def pop_flags(self) -> list[float]:
        """A flag for each stop signal and one for saving, to be summed over the processes; that for saving is reset."""
        flags = [*(self.received == number for number in STOP_SIGNALS), self.save_requested]
        self.save_requested = False
        return [float(flag) for flag in flags]

    def decode(self, sums: Sequence[float]) -> StopRequest:
        """The request behind the summed flags of all processes."""
        *stops, save = sums
        stop = next((int(number) for number, count in zip(STOP_SIGNALS, stops, strict=True) if count), 0)
        return StopRequest(stop, save > 0)


@contextlib.contextmanager
def setup_signals() -> Iterator[None]:
    """While a run is set up, there is nothing to save: SIGUSR1 does nothing, SIGTERM exits with status 143."""
    handlers = {signal.SIGTERM: exit_on_signal}
    if SAVE_SIGNAL is not None:
        handlers[SAVE_SIGNAL] = signal.SIG_IGN
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def exit_on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class InterruptibleLoader:
    """The batches of `loader` until a stop signal arrives; then `interrupted` is true.

    `broken`: the files that --skip-broken left out of the batches so far.
    """

    def __init__(self, loader: DataLoader, signals: StopSignals):
        self.loader, self.signals = loader, signals
        self.interrupted = False
        self.broken: list[str] = []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict]:
        for batch in self.loader:
            if self.signals.received:
                self.interrupted = True
                return
            self.broken += broken_files([batch])
            yield batch
