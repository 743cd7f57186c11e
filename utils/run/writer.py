"""Write to a disk that may be full or read-only for a while: the data stays in memory, and the run continues."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from utils.run.files import append_whole, write_atomically


class RetryingWriter:
    """Keeps in memory what cannot be written, and retries it with each `replace`. Reports a failure once.

    `unwritten`: the files on disk that are older than the data handed over for them.
    """

    def __init__(self) -> None:
        self.replacements: dict[Path, Callable[[], object]] = {}
        self.appendices: dict[Path, bytes] = {}
        self.is_failing = False

    @property
    def unwritten(self) -> list[Path]:
        return [*self.replacements, *self.appendices]

    def replace(self, path: Path, data: bytes | memoryview) -> None:
        """Write `data` to `path`. Waiting files are written in the order in which they were last handed over."""
        self.write(path, partial(write_atomically, path, data))

    def write(self, path: Path, action: Callable[[], object]) -> None:
        """Call `action()`, which writes `path` or raises OSError; as `replace` does, later again if it fails."""
        self.replacements.pop(path, None)
        self.replacements[path] = action
        self.retry()

    def append(self, path: Path, data: bytes) -> None:
        """Append `data` to `path`."""
        self.appendices[path] = self.appendices.get(path, b"") + data
        self.attempt(path, self.appendices, partial(append_whole, path, self.appendices[path]))

    def retry(self) -> None:
        """Write everything that waits: the rows of the log before the checkpoint that counts them."""
        for path in list(self.appendices):
            self.attempt(path, self.appendices, partial(append_whole, path, self.appendices[path]))
        for path in list(self.replacements):
            self.attempt(path, self.replacements, self.replacements[path])
        if self.is_failing and not self.unwritten:
            self.is_failing = False
            tqdm.write("the files of the run can be written again: nothing is missing", file=sys.stderr)

    def attempt(self, path: Path, waiting: dict, action: Callable[[], object]) -> None:
        """Call `action()`, and remove `path` from `waiting` if it succeeds."""
        try:
            action()
        except OSError as error:
            if not self.is_failing:
                tqdm.write(
                    f"warning: cannot write {path} ({error.strerror}): make room there; the run continues, the old "
                    "file stays, and the next save tries again",
                    file=sys.stderr,
                )
            self.is_failing = True
        else:
            del waiting[path]
