"""The `python -m dataloaders.convert` command that would mend a dataset of the layout `folder`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.constants import IGNORE_INDEX

COMMAND = "python -m dataloaders.convert"  # in a message: the problem is one that this command mends
# Parts of messages
NO_LIST, NO_CLASSES, NO_FOLDER, COLORS = "lists the ids", "classes.txt is missing", "(looked for ", "is a RGB"


def convert_command(root: Path, problems: Sequence[str], values: Mapping[int, int], num_classes: int) -> str | None:
    """The command with its flags; None if none of `problems` is of its kind. `values`: label value -> pixels."""

    def mentions(text: str) -> bool:
        return any(text in problem for problem in problems)

    flags = value_flags(values, num_classes) if num_classes else None
    nothing_fits = bool(num_classes) and not any(values.values())
    is_of_kind = flags or nothing_fits or any(map(mentions, (COMMAND, NO_CLASSES, NO_FOLDER)))
    if not root.is_dir() or not is_of_kind:
        return None
    parts = [COMMAND, "--images", shlex.quote(str(root)), "--out", shlex.quote(f"{root}-converted")]
    parts += ["--classes FILE"] if mentions(NO_CLASSES) or mentions(COLORS) else []
    parts += ["--val 0.2"] if mentions(NO_LIST) else []
    parts += [flags] if flags else []
    text = " ".join([*parts, "--dry-run"])
    return text + (" (FILE: one `name r g b` a line)" if mentions(COLORS) else "")


def value_flags(values: Mapping[int, int], num_classes: int) -> str | None:
    """The flags that make class numbers of `values` (-> pixels), if there is one plain reading of them."""
    seen = sorted(value for value, pixels in values.items() if pixels and value <= IGNORE_INDEX)
    rest = [value for value in seen if value != IGNORE_INDEX]
    if num_classes == 2 and seen == [0, IGNORE_INDEX]:
        return "--values 0 255"
    if not rest or rest[-1] < num_classes:
        return None
    if rest[-1] == num_classes:
        return "--first-id 1" if rest[0] else "--first-id 1 --ignore 0"
    fitting = next((found for found in (seen, rest) if len(found) == num_classes), None)
    return fitting and "--values " + " ".join(map(str, fitting))
