"""Mask images: gray or palette files of values, or files of colors; CVAT's and Roboflow's exports among them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.layout import first_five
from dataloaders.formats.classes import TRANSPARENT, ClassList, color_code
from dataloaders.formats.pixels import read_codes
from dataloaders.formats.source import Item, Reading, Source, raise_all
from dataloaders.formats.unknown import ColorNames, Unknown, ValueNames, palette_problem, unknown_problems
from utils.errors import UserError

POLICIES = ("nearest", "ignore", "background")  # for pixels of no class


class MaskOptions(NamedTuple):
    """How masks give the class of a pixel, beside the list of classes."""

    ignore: Sequence[str] = ()  # values, r,g,b colors or "transparent"
    first_id: int = 0  # the value of class 0
    values: Sequence[int] | None = None  # the value of each class
    unknown: str | None = None  # one of POLICIES


class Masks(Source):
    """A mask file for each image."""

    kind = "mask"

    def __init__(self, items: Sequence[Item], classes: ClassList, options: MaskOptions):
        self.classes, self.class_file, self.colors = classes.names, str(classes.file), classes.colors
        if options.values is not None or options.first_id:
            classes = without_colors(classes)
        self.items, self.class_list, self.options = items, classes, options
        self.names = ColorNames() if classes.has_colors else ValueNames()
        self.codes = class_codes(classes, options)
        self.known = dict(zip(self.codes, range(len(self.codes)), strict=True))
        ignored = [self.ignored_code(text) for text in options.ignore]
        if both := [code for code in ignored if code in self.known]:
            name = self.classes[self.known[both[0]]]
            raise UserError(f"--ignore {self.names.text(both[0])} is the class {name!r}: leave one of them out")
        self.known |= dict.fromkeys(ignored, IGNORE_INDEX)
        if not classes.has_colors:
            self.known.setdefault(IGNORE_INDEX, IGNORE_INDEX)
        self.notes = []

    def ignored_code(self, text: str) -> int:
        """The code of a value of --ignore. Raises UserError if it is none."""
        parts = text.split(",")
        if text == "transparent":
            return TRANSPARENT
        if not all(part.strip().isdecimal() and int(part) <= 255 for part in parts) or len(parts) not in (1, 3):
            raise UserError(f"--ignore {text}: give a value of 0 to 255, a color R,G,B, or transparent")
        numbers = [int(part) for part in parts]
        if self.class_list.has_colors:
            return color_code(*numbers * (3 // len(numbers)))
        if len(numbers) == 3:
            raise UserError(f"--ignore {text} is a color, but {self.class_file} has no colors: add `r g b` to each")
        return numbers[0]

    def read_label(self, item: Item) -> tuple[Image.Image, Reading]:
        return read_codes(item.label, as_colors=self.class_list.has_colors)

    def describe(self, number: int) -> str:
        is_number = not self.class_list.has_colors and self.codes[number] == number
        return "" if is_number else self.names.text(self.codes[number])

    def assign(self, readings: Sequence[Reading]) -> dict[int, int]:
        totals, unknown = Counter(), self.find_unknown(readings)
        for reading in readings:
            totals.update(reading.counts)
        raise_all([problem for problem in self.problems(readings, totals) if problem])
        self.add_notes(readings, unknown, totals)
        numbers = {code: self.known[code] for code in totals if code in self.known}
        return numbers | self.replace(list(unknown.pixels))

    def find_unknown(self, readings: Sequence[Reading], *, with_lossy: bool = True) -> Unknown:
        unknown = Unknown(Counter(), {}, Counter())
        for item, reading in self.pairs(readings):
            for code, pixels in reading.counts.items():
                if code not in self.known and (with_lossy or "lossy" not in reading.traits):
                    unknown.pixels[code] += pixels
                    unknown.files[code] += 1
                    unknown.examples.setdefault(code, item.label)
        return unknown

    def problems(self, readings: Sequence[Reading], totals: Counter) -> list[str | None]:
        """Everything that would make wrong labels."""
        policy, options = self.options.unknown, self.options
        lossy = [str(item.label) for item, reading in self.pairs(readings) if "lossy" in reading.traits]
        refused = None
        if policy in (None, "nearest"):
            unknown = self.find_unknown(readings, with_lossy=False)
            refused = unknown.only(TRANSPARENT) if policy else unknown
        found = [lossy_problem(lossy)] if lossy and policy != "nearest" else []
        if refused:
            is_gray = all("gray" in reading.traits or reading.colors for reading in readings)
            found += unknown_problems(refused, totals, self.class_list, self.known, names=self.names, is_gray=is_gray)
        if policy == "nearest" and not self.class_list.has_colors and not self.class_list.codes and not options.values:
            found.append("--unknown nearest needs colors in FILE or --values: between class numbers nothing is near")
        if not self.class_list.has_colors and options.values is None:
            found.append(palette_problem(self.pairs(readings)))
            if not options.ignore and not options.first_id:
                found.append(self.names.two_class_problem(totals, self.classes))
        return found

    def pairs(self, readings: Sequence[Reading]) -> list[tuple[Item, Reading]]:
        return list(zip(self.items, readings, strict=True))

    def add_notes(self, readings: Sequence[Reading], unknown: Unknown, totals: Counter) -> None:
        if gray := sum("gray in RGB" in reading.traits for reading in readings):
            self.notes.append(f"{gray} masks are gray images stored as RGB: their values are taken")
        if lossy := sum("lossy" in reading.traits for reading in readings):
            self.notes.append(f"{lossy} masks are JPEG files, which are lossy: edges may be wrong by some pixels")
        if pixels := unknown.pixels.total():
            share = 100 * pixels / totals.total()
            self.notes.append(
                f"{pixels:,} pixels ({share:.2f}%) have a {self.names.kind} of no class: --unknown "
                f"{self.options.unknown} decides"
            )

    def replace(self, codes: list[int]) -> dict[int, int]:
        """The class numbers that --unknown gives to unknown codes."""
        if self.options.unknown != "nearest":
            number = 0 if self.options.unknown == "background" else IGNORE_INDEX
            return dict.fromkeys(codes, number)
        known = [code for code in self.known if code != TRANSPARENT]
        points = np.array([self.names.point(code) for code in known])
        numbers = {}
        for start in range(0, len(codes), 1024):  # so that 254 classes and a million colors need little memory
            part = codes[start : start + 1024]
            distances = np.array([self.names.point(code) for code in part])[:, None] - points
            nearest = (distances**2).sum(-1).argmin(-1)
            numbers |= {code: self.known[known[index]] for code, index in zip(part, nearest.tolist(), strict=True)}
        return numbers


def class_codes(classes: ClassList, options: MaskOptions) -> tuple[int, ...]:
    """The code of each class. Raises UserError for --values or --first-id that do not fit the classes."""
    count = len(classes.names)
    explicit = options.values is not None or options.first_id
    if explicit and classes.codes:
        raise UserError(f"{classes.file} gives values, so --values and --first-id have no use: leave them out")
    if options.values is not None:
        if len(options.values) != count or len(set(options.values)) != count:
            given = " ".join(map(str, options.values))
            raise UserError(f"--values {given}: give one value for each of the {count} classes of {classes.file}")
        return tuple(options.values)
    if options.first_id + count > IGNORE_INDEX + 1:
        raise UserError(f"--first-id {options.first_id} with {count} classes leads beyond 255: lower it")
    return classes.codes or tuple(range(options.first_id, options.first_id + count))


def without_colors(classes: ClassList) -> ClassList:
    """For masks of values: the colors of the file are to be drawn with."""
    return classes._replace(codes=None, has_colors=False) if classes.has_colors else classes


def lossy_problem(paths: Sequence[str]) -> str:
    return (
        f"{len(paths)} masks are JPEG files: {first_five(paths)}: JPEG is lossy and changes colors at edges; export "
        "PNG, or give --unknown nearest to take the class of the nearest color"
    )


def colored_problem(paths: Sequence[Path], class_file: object, *, has_colors: bool) -> str:
    """That `paths` are masks of colors, with those of the first one, where masks of values are expected."""
    if has_colors:
        return (
            f"{len(paths)} masks hold colors: {first_five(paths)}: --values and --first-id are for masks of values, "
            "leave them out"
        )
    counts = read_codes(paths[0], as_colors=True)[1].counts
    colors = sorted(counts, key=lambda code: -counts[code])
    return (
        f"{len(paths)} masks hold colors, but {class_file} has none: {first_five(paths)}: write `name r g b` in each "
        f"line of FILE; the colors of the first one are {first_five([ColorNames().text(code) for code in colors])}"
    )
