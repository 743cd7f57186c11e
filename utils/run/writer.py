"""Writing on a disk that may be full or gone read-only for a while: nothing is given up, and the run goes on."""

import sys
from pathlib import Path

from tqdm import tqdm

from utils.run.files import append_whole, write_atomically


class RetryingWriter:
    """Keeps in memory what the disk refuses, and tries it again with each later whole file. Says so once.

    `unwritten` names the files on disk that are older than what was handed over.
    """

    def __init__(self) -> None:
        self.whole: dict[Path, bytes | memoryview] = {}
        self.tails: dict[Path, bytes] = {}
        self.is_failing = False

    @property
    def unwritten(self) -> list[Path]:
        return [*self.whole, *self.tails]

    def replace(self, path: Path, data: bytes | memoryview) -> None:
        """Put `data` at `path`. Files that wait are written in the order in which they were last handed over."""
        self.whole.pop(path, None)
        self.whole[path] = data
        self.retry()

    def append(self, path: Path, data: bytes) -> None:
        """Add `data` to the end of `path`."""
        self.tails[path] = self.tails.get(path, b"") + data
        self.attempt(path, append_whole, self.tails)

    def retry(self) -> None:
        """Write all that is waiting: the log's rows before the checkpoint that counts them."""
        for path in list(self.tails):
            self.attempt(path, append_whole, self.tails)
        for path in list(self.whole):
            self.attempt(path, write_atomically, self.whole)
        if self.is_failing and not self.unwritten:
            self.is_failing = False
            tqdm.write("the files of the run can be written again, and are", file=sys.stderr)

    def attempt(self, path: Path, write, waiting: dict) -> None:
        try:
            write(path, waiting[path])
        except OSError as error:
            if not self.is_failing:
                tqdm.write(
                    f"warning: cannot write {path} ({error.strerror}): the run goes on, the old file stays, and "
                    "the next save tries again: make room there",
                    file=sys.stderr,
                )
            self.is_failing = True
        else:
            del waiting[path]
