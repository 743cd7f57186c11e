"""The exceptions that end a command with one line instead of a traceback. The command scripts catch them, once."""

import re


class UserError(ValueError):
    """Something a user can fix: exit status 2. The message is one line that names the value or file, and the fix."""

    def line(self) -> str:
        """The message alone, also after a DataLoader worker wrapped it in the traceback of its process."""
        last = str(self).strip().splitlines()[-1]
        return re.sub(r"^errors\.\w+: ", "", last)


class BrokenPicture(UserError):
    """A picture or label file, at `path`, whose content cannot be decoded: what --skip-broken goes on without."""

    def __init__(self, message: str, path: object = ""):
        super().__init__(message)
        self.path = str(path)


class RunFailed(RuntimeError):
    """A run that cannot go on, or whose last files could not be written: exit status 1. The message is one line."""
