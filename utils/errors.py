"""The exceptions that end a command with one line instead of a traceback."""

import contextlib
import re
from collections.abc import Iterator


class UserError(ValueError):
    """Bad input: exit status 2. The message is one line that names the value or file, and the fix.

    A parameter stands in backticks (`batch_size`); the commands print the name of its flag instead.
    """

    def line(self) -> str:
        """The message alone, also after a DataLoader worker put it below the traceback of its process."""
        last = str(self).strip().splitlines()[-1]
        return re.sub(r"^(utils\.)?errors\.\w+: ", "", last)


class BrokenImage(UserError):
    """An image or label file, at `path`, that cannot be decoded. --skip-broken continues without it."""

    def __init__(self, message: str, path: object = ""):
        super().__init__(message)
        self.path = str(path)


class RunFailed(RuntimeError):
    """A run that cannot continue, or whose last files could not be written: exit status 1. The message is one line."""


@contextlib.contextmanager
def writing(path: object, fix: str) -> Iterator[None]:
    """Raise UserError, "cannot write PATH (reason): FIX", for an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}): {fix}") from error
