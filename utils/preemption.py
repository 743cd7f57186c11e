"""Asked to stop or to save: remember the signal, and let the step finish."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import NamedTuple, NoReturn

from utils.broken import broken_files

DOUBLED_SECONDS = 1.0
ORPHAN_SECONDS = 0.5


class Wishes(NamedTuple):
    """What some process was asked for: the number of the signal to stop by, or 0; and whether to save."""

    stop: int
    save: bool


class StopSignals:
    """Within the block, SIGINT and SIGTERM only set `received`, and SIGUSR1 asks for a checkpoint.

    A second SIGINT interrupts at once. Under torchrun a process may get the same Ctrl-C twice, from the terminal or the
    job's manager and from torchrun, which passes on what it receives: there the second counts only a second later.
    """

    STOPS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self.is_save_wanted = False
        self.first_interrupt: float | None = None

    def __enter__(self) -> "StopSignals":
        numbers = (*self.STOPS, signal.SIGUSR1)
        self.previous = {number: signal.signal(number, self.remember) for number in numbers}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def remember(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.is_save_wanted = True
            return
        if number == signal.SIGINT and self.first_interrupt is not None:
            pause = DOUBLED_SECONDS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0
            if time.monotonic() - self.first_interrupt >= pause:
                raise KeyboardInterrupt
            return
        self.received = number
        if number == signal.SIGINT:
            self.first_interrupt = time.monotonic()

    def take(self) -> list[float]:
        """A flag a signal, to be summed over the processes. SIGUSR1's is answered by that, and taken down."""
        flags = [*(self.received == number for number in self.STOPS), self.is_save_wanted]
        self.is_save_wanted = False
        return [float(flag) for flag in flags]

    def read(self, sums: Sequence[float]) -> Wishes:
        """What the summed flags of all processes ask for."""
        stop = next((int(number) for number, count in zip(self.STOPS, sums, strict=False) if count), 0)
        return Wishes(stop, sums[len(self.STOPS)] > 0)


@contextlib.contextmanager
def setting_up() -> Iterator[None]:
    """While a run is being set up there is nothing to save: SIGUSR1 does nothing, SIGTERM ends it with status 143."""
    previous = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


class UntilStopped:
    """The batches of `loader` until a stop signal arrives; `is_cut` tells whether some are left out.

    `broken` are the files that the batches name as left out by --skip-broken.
    """

    def __init__(self, loader, signals: StopSignals):
        self.loader, self.signals = loader, signals
        self.is_cut, self.broken = False, []

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict]:
        for batch in self.loader:
            if self.signals.received:
                self.is_cut = True
                return
            self.broken += broken_files([batch])
            yield batch


def leave_signals_to_parent() -> None:
    """For a data worker: signals to the whole process group, job or machine leave it at work until its parent is done.

    Only a SIGTERM from the parent itself ends it: that is how Python ends workers that are left over at its exit.
    """
    sys.excepthook = silent_about_a_parent_that_left
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS does not tell who sent a signal: out of the group's reach, then
        os.setpgid(0, 0)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=leave_when_parent_asks, args=(os.getppid(),), daemon=True).start()


def silent_about_a_parent_that_left(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The thread of a data worker that hands tensors over shows its errors by `sys.excepthook`.

    A parent that was interrupted in the middle of taking a batch is none.
    """
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def leave_when_parent_asks(parent: int) -> None:
    """Also when it is dead: what it left open, its connections too, must not outlive it."""
    received = None
    while os.getppid() == parent and (received is None or received.si_pid != parent):
        received = signal.sigtimedwait({signal.SIGTERM}, ORPHAN_SECONDS)
    os._exit(0)
