"""The one exception that means: the user can fix this. The command scripts print it as a line and exit 2."""


class UserError(ValueError):
    """Something a user can fix. The message is one line that names the value or file, and the fix."""

    def line(self) -> str:
        """The message alone, also after a DataLoader worker wrapped it in the traceback of its process."""
        last = str(self).strip().splitlines()[-1]
        return last.removeprefix("errors.UserError: ")
