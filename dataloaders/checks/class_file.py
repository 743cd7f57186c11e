"""A text file of classes: a line `name` or `name r g b` each, in the order of the class numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

from dataloaders.checks.layout import read_lines
from utils.constants import IGNORE_INDEX
from utils.errors import UserError
from utils.palettes import Palette

NUMBERS = r"(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})"
NAME_FIRST = re.compile(rf"(?P<name>.*[^\s,:;])[\s,:;]+{NUMBERS}$")
NO_COLOR = ("0", "0", "0")  # stands in for that of a blank line, which is reported


def read_class_lines(path: Path) -> list[str]:
    """The lines without the blank ones at the end. Raises UserError if the file cannot be read."""
    lines = read_lines(path)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def parse_class_lines(path: Path, lines: Sequence[str]) -> tuple[list[str], Palette | None]:
    """(names, colors); colors None if no line ends in three numbers. Raises UserError if only some do."""
    matches = [NAME_FIRST.match(line) for line in lines]
    if not any(matches):
        return list(lines), None
    for line, match in zip(lines, matches, strict=True):
        if line and not match:
            raise UserError(
                f"{path} gives no color for {line!r}: write `name r g b` in every line, or in none (three numbers at "
                "the end of a line are a color)"
            )
    rows = [(match["name"], match.groups()[1:]) if match else ("", NO_COLOR) for match in matches]
    return [name for name, _ in rows], parse_colors(path, rows)


def parse_colors(path: Path, rows: Sequence[tuple[str, Sequence[str]]]) -> Palette:
    """The colors of rows (name, three numbers). Raises UserError for a number above 255."""
    for name, color in rows:
        if any(int(value) > 255 for value in color):
            raise UserError(f"{path} gives {name!r} the color {','.join(color)}: each value is 0 to 255")
    return [tuple(map(int, color)) for _, color in rows]


def render_class_lines(names: Sequence[str], palette: Palette, *, with_colors: bool) -> str:
    """The content of the file. Names that end in three numbers have colors in any case, to be read as they are."""
    if not with_colors and not any(map(NAME_FIRST.match, names)):
        return "".join(f"{name}\n" for name in names)
    return "".join(f"{name} {' '.join(map(str, color))}\n" for name, color in zip(names, palette, strict=True))


def class_name_problems(path: Path, names: Sequence[str]) -> list[str]:
    problems = []
    if "" in names:
        problems.append(f"{path} has a blank line {names.index('') + 1}, which shifts the class numbers: delete it")
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    problems += [f"{path} names {name!r} twice: one line a class" for name in repeated]
    if not 2 <= len(names) < IGNORE_INDEX:
        problems.append(f"{path} names {len(names)} classes: 2 to {IGNORE_INDEX - 1} are possible")
    return problems
