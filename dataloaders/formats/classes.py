"""Class names, and the color or value that stands for each: a user's FILE, CVAT's labelmap.txt, Roboflow's table."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dataloaders.checks.class_file import (
    NUMBERS,
    class_name_problems,
    parse_class_lines,
    parse_colors,
    read_class_lines,
)
from dataloaders.formats.source import raise_all
from utils.errors import UserError
from utils.palettes import Palette

TRANSPARENT = 1 << 24  # the code of pixels that are not opaque; the colors are below it
LABELMAP, ROBOFLOW = "labelmap.txt", "_classes.csv"


class ClassList(NamedTuple):
    """Class names in the order of their numbers. `codes`: colors (see `color_code`) or values; None: the numbers."""

    file: Path
    names: tuple[str, ...]
    codes: tuple[int, ...] | None = None
    has_colors: bool = False

    @property
    def colors(self) -> Palette | None:
        return [color_of(code) for code in self.codes] if self.has_colors else None


def color_code(red: int, green: int, blue: int) -> int:
    return red << 16 | green << 8 | blue


def color_of(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def read_class_list(path: Path) -> ClassList:
    """Raises UserError for a file that is missing or invalid."""
    if not path.is_file():
        raise UserError(f"{path} is missing: it lists the classes from 0, one name (or `name r g b`) a line")
    lines = read_class_lines(path)
    if path.name == ROBOFLOW:
        found = parse_roboflow(path, lines)
    elif path.name == LABELMAP or (lines and re.match(r"#\s*label\s*:", lines[0])):
        found = parse_labelmap(path, lines)
    else:
        found = parse_lines(path, lines)
    if len(found.names) == 1:
        raise UserError(f"{path} names 1 class: write one a line, with what is not {found.names[0]!r} as the first")
    raise_all([*class_name_problems(path, list(found.names)), *code_problems(found)])
    return found


def parse_lines(path: Path, lines: Sequence[str]) -> ClassList:
    """`name` or `name r g b` a line."""
    names, colors = parse_class_lines(path, lines)
    return with_colors(path, names, colors) if colors else ClassList(path, tuple(names))


def parse_labelmap(path: Path, lines: Sequence[str]) -> ClassList:
    """CVAT's `label:color_rgb:parts:actions` a line."""
    rows = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        match = re.match(rf"(.+?)\s*:\s*{NUMBERS}\s*(:|$)", line)
        if not match:
            raise UserError(f"{path} has the line {line!r}: CVAT writes label:r,g,b:parts:actions")
        rows.append((match[1], match.groups()[1:4]))
    return with_colors(path, [name for name, _ in rows], parse_colors(path, rows))


def with_colors(path: Path, names: Sequence[str], colors: Palette) -> ClassList:
    return ClassList(path, tuple(names), tuple(color_code(*color) for color in colors), has_colors=True)


def parse_roboflow(path: Path, lines: Sequence[str]) -> ClassList:
    """Roboflow's `Pixel Value, Class`: a header, and a line for each value."""
    rows = []
    for line in lines[1:]:
        value, _, name = line.partition(",")
        if not value.strip().isdecimal() or int(value) > 255:
            raise UserError(f"{path} has the line {line!r}: Roboflow writes `value, class` with a value of 0 to 255")
        rows.append((int(value), name.strip()))
    rows.sort()
    return ClassList(path, tuple(name for _, name in rows), tuple(value for value, _ in rows))


def code_problems(classes: ClassList) -> Iterator[str]:
    seen = {}
    for name, code in zip(classes.names, classes.codes or (), strict=False):
        if (other := seen.setdefault(code, name)) != name:
            text = ",".join(map(str, color_of(code))) if classes.has_colors else code
            yield f"{classes.file} gives {other!r} and {name!r} both {text}: one class for each"


def find_class_list(folders: Sequence[Path]) -> ClassList | None:
    """The classes that an export carries: the first of its known files in `folders`, or in their sub-folders.

    Raises UserError if splits carry different ones.
    """
    for folder in folders:
        for name in (LABELMAP, "classes.txt", ROBOFLOW):
            paths = [folder / name, *sorted(folder.glob(f"*/{name}"))] if name == ROBOFLOW else [folder / name]
            lists = [read_class_list(path) for path in paths if path.is_file()]
            for other in lists[1:]:
                if other[1:] != lists[0][1:]:
                    raise UserError(f"{lists[0].file} and {other.file} differ: give --classes FILE with the right ones")
            if lists:
                return lists[0]
    return None
