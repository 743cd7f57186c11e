"""What to tell the user about values and colors of masks that are no class: what they look like, and the fix."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.mend import value_flags
from dataloaders.formats.classes import TRANSPARENT, ClassList, color_code, color_of
from dataloaders.formats.source import Item, Reading

# Of anti-aliased edges: many colors, each of few pixels. Colors of missing classes are few and have many
MIN_EDGE_COLORS, MAX_EDGE_SHARE = 10, 0.03
MAX_DISTANCE = 12  # of a color from the line between two class colors, 0..255: rounding, and JPEG's noise


class Unknown(NamedTuple):
    """Codes that are no class: their pixels, a file of each, and the number of files."""

    pixels: Counter
    examples: dict[int, Path]
    files: Counter

    def only(self, code: int) -> "Unknown":
        return Unknown(*({code: part[code]} if code in part else {} for part in self))


class ValueNames:
    """Codes as values, in messages."""

    kind, ignore = "value", "VALUE"

    def text(self, code: int) -> str:
        return "transparent" if code == TRANSPARENT else str(code)

    def point(self, code: int) -> tuple[int, ...]:
        return (code,)

    def two_class_problem(self, totals: Mapping[int, int], classes: Sequence[str]) -> str | None:
        """A problem if two classes have masks of 0 and 255 alone: 255 would be ignored."""
        if len(classes) != 2 or set(totals) != {0, IGNORE_INDEX}:
            return None
        return f"the masks hold only 0 and 255, and 255 is ignored: give --values 0 255 if it is {classes[1]!r}"


class ColorNames:
    """Codes as colors, in messages."""

    kind, ignore = "color", "R,G,B"

    def text(self, code: int) -> str:
        return "transparent" if code == TRANSPARENT else ",".join(map(str, color_of(code)))

    def point(self, code: int) -> tuple[int, ...]:
        return color_of(code)


def unknown_problems(
    unknown: Unknown, totals: Mapping[int, int], classes: ClassList, known: Mapping[int, int], *,
    names: ValueNames | ColorNames, is_gray: bool,
) -> list[str]:  # fmt: skip
    """A line with the most frequent unknown codes, what they look like, and the flag to give."""
    if not unknown.pixels:
        return []
    ranked = sorted(unknown.pixels, key=lambda code: (-unknown.pixels[code], code))
    shown = ", ".join(
        f"{names.text(code)} ({unknown.pixels[code]:,} pixels in {unknown.files[code]} masks, such as "
        f"{unknown.examples[code]})"
        for code in ranked[:5]
    )
    more = f", and {len(ranked) - 5} more" if len(ranked) > 5 else ""
    start = f"{classes.file} has no class for {len(ranked)} of the masks' {names.kind}s: {shown}{more}: "
    return [start + fix(ranked, totals, classes, known, names=names, is_gray=is_gray)]


def fix(
    ranked: Sequence[int], totals: Mapping[int, int], classes: ClassList, known: Mapping[int, int], *,
    names: ValueNames | ColorNames, is_gray: bool,
) -> str:  # fmt: skip
    if ranked[0] == TRANSPARENT:
        return "give --ignore transparent if these pixels are to be ignored"
    if classes.has_colors:
        if is_gray and max(totals) <= color_code(*[len(classes.names)] * 3):
            return "the masks hold class numbers: give a FILE without colors, or --values with the number of each class"
        is_rare = totals[ranked[0]] <= MAX_EDGE_SHARE * sum(totals.values())
        if is_rare and are_between(ranked, [code for code in known if code in totals]):
            return (
                "most lie between two class colors, as at anti-aliased edges: give --unknown nearest to take the "
                "nearest class, or --unknown ignore"
            )
    elif flags := value_flags(totals, len(classes.names)):
        return f"give {flags} if that is their meaning"
    return f"add the class to FILE, or give --ignore {names.text(ranked[0])} (--unknown ignore: all of them)"


def are_between(codes: Sequence[int], known: Sequence[int]) -> bool:
    """Whether there are many `codes`, and most of the frequent ones lie on a line between two known colors."""
    ends = np.array([color_of(code) for code in known if code != TRANSPARENT], float)
    if len(codes) < MIN_EDGE_COLORS or len(ends) < 2:
        return False
    first, second = np.triu_indices(len(ends), 1)
    line, start = ends[second] - ends[first], ends[first]
    squares = (line**2).sum(-1)
    near = 0
    for color in np.array([color_of(code) for code in codes[:100]], float):
        position = ((color - start) * line).sum(-1) / squares
        closest = start + position.clip(0, 1)[:, None] * line
        near += (((color - closest) ** 2).sum(-1) ** 0.5).min() <= MAX_DISTANCE
    return near >= 0.8 * min(len(codes), 100)


def palette_problem(pairs: Sequence[tuple[Item, Reading]]) -> str | None:
    """A problem if a number of palette masks has another color in another file: then the colors are the classes."""
    first: dict[int, tuple[tuple, Path]] = {}
    for item, reading in pairs:
        for number, color in reading.colors.items():
            other, path = first.setdefault(number, (color, item.label))
            if other != color:
                colors = [",".join(map(str, value)) for value in (other, color)]
                return (
                    f"the number {number} is the color {colors[0]} in {path} and {colors[1]} in {item.label}: if the "
                    "colors are the classes, write `name r g b` in each line of FILE; if the numbers are, give "
                    "--values with the number of each class"
                )
    return None
