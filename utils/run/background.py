"""A thread that writes the files of a run: training goes on while the disk works."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from utils.run.writer import RetryingWriter


class BackgroundWriter:
    """Calls a `RetryingWriter` in a thread, one call after the other, in the order in which they are made here.

    So what is on disk at any time is what it would be without the thread, at most older. An exception of the thread
    ends it, drops the calls that wait, and is raised by the next call here. The thread ends when nothing waits.
    """

    def __init__(self) -> None:
        self.writer = RetryingWriter()
        self.calls: deque[tuple[Path | None, Callable[[], None]]] = deque()  # that have not begun
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def replace(self, path: Path, data: bytes | memoryview) -> None:
        self.put(path, partial(self.writer.replace, path, data))

    def write(self, path: Path, action: Callable[[], object]) -> None:
        self.put(path, partial(self.writer.write, path, action))

    def append(self, path: Path, data: bytes) -> None:
        self.put(path, partial(self.writer.append, path, data))

    def retry(self) -> None:
        self.put(None, self.writer.retry)

    def put(self, path: Path | None, call: Callable[[], None]) -> None:
        with self.changed:
            self.raise_error()
            self.calls.append((path, call))
            if self.thread is None:
                # A daemon: whoever does not wait ends at once
                self.thread = threading.Thread(target=self.work, name="files of the run", daemon=True)
                self.thread.start()

    def work(self) -> None:
        while (call := self.next_call()) is not None:
            try:
                call()
            except BaseException as error:
                with self.changed:
                    self.error = error
                    self.calls.clear()
            del call  # and the memory of what is written

    def next_call(self) -> Callable[[], None] | None:
        """None if nothing waits: then the thread ends."""
        with self.changed:
            call = self.calls.popleft()[1] if self.calls else None
            if call is None:
                self.thread = None
            self.changed.notify_all()
            return call

    def discard(self, path: Path | None = None) -> None:
        """Forget the calls that have not begun: those for `path`, or all."""
        with self.changed:
            self.calls = deque(call for call in self.calls if path not in (None, call[0]))

    def wait_until_begun(self, path: Path) -> None:
        """Until no call for `path` waits. Raises the error of the thread."""
        with self.changed:
            self.changed.wait_for(lambda: all(waiting != path for waiting, _ in self.calls))
            self.raise_error()

    def wait(self) -> None:
        """Until everything is written, or cannot be written for now. Raises the error of the thread."""
        self.settle()
        self.raise_error()

    def settle(self) -> None:
        """As `wait`, but raises nothing: for one who has an error already."""
        with self.changed:
            self.changed.wait_for(lambda: self.thread is None)

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    @property
    def unwritten(self) -> list[Path]:
        """As of the last `wait`."""
        return self.writer.unwritten
