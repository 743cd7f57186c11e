"""What a signal to the whole process group, job or machine does in a data worker: nothing, until its parent is done."""

import multiprocessing
import os
import signal
import sys
import threading
from types import TracebackType

ORPHAN_SECONDS = 0.5


def ignore_signals_in_worker() -> None:
    """Ignore SIGINT, SIGUSR1 and SIGTERM, except a SIGTERM of the parent: with it Python ends workers at its exit."""
    sys.excepthook = hide_connection_errors
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "SIGUSR1"):  # Windows, where no signal reaches a group
        return
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS does not tell the sender of a signal: leave the group instead
        os.setpgid(0, 0)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=exit_when_parent_asks, daemon=True).start()


def hide_connection_errors(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread of a worker that sends tensors reports its errors by `sys.excepthook`.

    A parent that was interrupted while it received a batch is no error.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def exit_when_parent_asks() -> None:
    """Exit also when the parent is dead: the files and connections it left open must not outlive it."""
    parent, starter = multiprocessing.parent_process(), os.getppid()  # starter: the parent, or its fork server
    received = None
    while os.getppid() == starter and parent.is_alive() and (received is None or received.si_pid != parent.pid):
        received = signal.sigtimedwait({signal.SIGTERM}, ORPHAN_SECONDS)
    os._exit(0)
