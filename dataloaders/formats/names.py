"""Class numbers of named objects (COCO's categories, labelme's labels) that are drawn on a background."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.class_file import class_name_problems
from dataloaders.checks.layout import first_five
from dataloaders.formats.classes import ClassList
from dataloaders.formats.source import raise_all
from utils.errors import UserError
from utils.palettes import Palette

BACKGROUND = "background"
BACKGROUND_NAMES = (BACKGROUND, "_background_")  # the second one is labelme's
IGNORED_NAME = "__ignore__"  # labelme's


class NameTable(NamedTuple):
    """`numbers`: the class of each name, 255 to ignore it, None for names that are not drawn. `colors`: the file's."""

    classes: tuple[str, ...]
    numbers: dict[str, int | None]
    fill: int  # of pixels without an object
    colors: Palette | None


def make_table(
    used: Mapping[str, int], listed: Sequence[str], classes: ClassList | None, *,
    source: Path, ignore: Sequence[str], unknown: str | None,
) -> NameTable:  # fmt: skip
    """`used`: names that occur -> objects; `listed`: names in the order of the classes, for when there is no FILE.

    Class 0 is the background, unless it is among `ignore`. Raises UserError for names of no class.
    """
    if unknown == "nearest":
        raise UserError("--unknown nearest is for colors and values of masks: give ignore or background")
    if bad := [name for name in ignore if name not in {*used, *listed, *BACKGROUND_NAMES}]:
        raise UserError(f"--ignore {bad[0]}: {source} has no such name; it has {first_five(list(used))}")
    ignored, has_background = {*ignore, IGNORED_NAME}, not {*ignore} & {*BACKGROUND_NAMES}
    names = list(classes.names if classes else dict.fromkeys([*[BACKGROUND] * has_background, *listed]))
    names = [
        name
        for name in dict.fromkeys(map(plain_name, names))
        if name not in ignored and (has_background or name != BACKGROUND)
    ]
    if has_background and names[:1] != [BACKGROUND]:
        raise UserError(
            f"{classes.file if classes else source} has no {BACKGROUND} as class 0, for pixels without an object: "
            f"make it the first line, or give --ignore {BACKGROUND}"
        )
    raise_all(class_name_problems(classes.file if classes else source, names))
    numbers = {name: names.index(name) for name in names} | dict.fromkeys(ignored, IGNORE_INDEX)
    fill = 0 if has_background else IGNORE_INDEX
    numbers |= dict.fromkeys(BACKGROUND_NAMES, fill)
    rest = {name: count for name, count in used.items() if name not in numbers}
    if rest and not unknown:
        raise UserError(unknown_names(rest, classes, source))
    numbers |= dict.fromkeys(rest, IGNORE_INDEX if unknown == "ignore" else None)
    return NameTable(tuple(names), numbers, fill, colors_of(names, classes))


def colors_of(names: Sequence[str], classes: ClassList | None) -> Palette | None:
    if not classes or not classes.has_colors:
        return None
    colors = dict(zip(map(plain_name, classes.names), classes.colors, strict=True))
    return [colors[name] for name in names]


def plain_name(name: str) -> str:
    return BACKGROUND if name in BACKGROUND_NAMES else name


def unknown_names(rest: Mapping[str, int], classes: ClassList, source: Path) -> str:
    ranked = sorted(rest, key=lambda name: (-rest[name], name))
    shown = first_five([f"{name} ({rest[name]} objects)" for name in ranked])
    return (
        f"{len(rest)} names of {source} are no class of {classes.file}: {shown}: add them to FILE, give --ignore NAME, "
        "or --unknown ignore (255) or --unknown background (not drawn)"
    )
