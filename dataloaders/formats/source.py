"""Source: images with annotations of one format, as `python -m dataloaders.convert` reads them. The base of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX
from utils.distinct_colors import distinct_palette
from utils.errors import UserError
from utils.palettes import Palette

MAX_PRINTED = 50  # problems


class Item(NamedTuple):
    """An image with its annotation."""

    id: str
    image: Path
    label: Path  # mask or JSON file
    split: str | None  # that the source gives it


class Reading(NamedTuple):
    """What an annotation holds: pixels by code (see `Source`), how it is stored, and problems of it and its image."""

    counts: Mapping[int, int]
    traits: frozenset[str] = frozenset()
    colors: Mapping[int, tuple] = {}
    problems: Sequence[UserError] = ()


class Source:
    """Annotations with one integer, a code, for each pixel: a class number, the value of a gray mask, or a color.

    `read_label` gives the codes; when all are known, `assign` finds the class number of each.
    """

    items: Sequence[Item]
    classes: tuple[str, ...]
    class_file: str  # where the classes come from, for messages
    notes: Sequence[str] = ()
    kind: str  # of annotation, for messages
    colors: Palette | None = None  # that the class file gives
    is_upright = False  # whether annotations belong to the image as its EXIF orientation shows it

    @property
    def palette(self) -> Palette:
        return self.colors or distinct_palette(self.classes)

    def read_label(self, item: Item) -> tuple[Image.Image, Reading]:
        """(codes as image of mode L, LA, RGB or RGBA, their counts). Raises UserError."""
        raise NotImplementedError

    def assign(self, readings: Sequence[Reading]) -> dict[int, int]:
        """The class number, or 255, of each code in `readings`. Raises UserError with all that have none."""
        return {code: code for reading in readings for code in reading.counts}

    def describe(self, number: int) -> str:
        """What stands for a class in the annotations; empty for its name or number."""
        return ""


def raise_all(problems: Sequence[str | UserError]) -> None:
    """Raise UserError with the first of `problems`, if there is any; print all if there are more."""
    lines = [problem.line() if isinstance(problem, UserError) else problem for problem in problems]
    if len(lines) > 1:
        print("\n".join(f"problem: {line}" for line in lines[:MAX_PRINTED]))
        if len(lines) > MAX_PRINTED:
            print(f"... and {len(lines) - MAX_PRINTED} more")
    if lines:
        more = f"; and {len(lines) - 1} more problems, listed above; nothing is written" if len(lines) > 1 else ""
        raise UserError(lines[0] + more)


def class_counts(reading: Reading, numbers: Mapping[int, int]) -> np.ndarray:
    """Pixels by class number, [256]; those of 255 are ignored."""
    counts = np.zeros(IGNORE_INDEX + 1, np.int64)
    for code, pixels in reading.counts.items():
        counts[numbers[code]] += pixels
    return counts
