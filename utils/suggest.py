"""The nearest of the known names, for messages about a misspelled one."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, names: Iterable[object]) -> str:
    """The end of a message, `, did you mean NAME?`, for the nearest of `names`; "" if none is near."""
    found = difflib.get_close_matches(str(word), [str(name) for name in names], n=1)
    return f", did you mean {found[0]}?" if found else ""
