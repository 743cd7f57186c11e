"""Data workers ignore signals to their whole group or job, and end with their parent, whichever way it ends."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import util  # noqa: F401  its exit handler is registered first, so it runs after ours
from types import TracebackType

ORPHAN_SECONDS = 0.5


def ignore_signals_in_worker() -> None:
    """The training process alone decides what SIGINT, SIGTERM and SIGUSR1 mean."""
    sys.excepthook = hide_connection_errors
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()


def hide_connection_errors(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread of a worker that sends tensors reports its errors by `sys.excepthook`.

    A parent that was interrupted while it received a batch is no error.
    """
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def exit_with_parent() -> None:
    """Exit when the parent is dead: the files and connections it left open must not outlive it."""
    parent, starter = multiprocessing.parent_process(), os.getppid()  # starter: the parent, or its fork server
    while os.getppid() == starter and parent.is_alive():
        time.sleep(ORPHAN_SECONDS)
    os._exit(0)


@atexit.register
def kill_workers() -> None:
    """Before Python waits for its workers without a limit, after a SIGTERM that they ignore or that came too early."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise for a killed worker
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
