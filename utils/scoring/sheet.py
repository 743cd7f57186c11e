"""sheet.png: image, label, prediction and errors of scored images, a row each, and a legend."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.constants import IGNORE_INDEX
from utils.palettes import Palette
from utils.scoring.metrics import percent
from utils.scoring.samples import MIN_WIDTH, shown_size, side_by_side, text_line
from utils.scoring.visualize import BLACK, GAP, GRAY, WHITE, Color, Example, Hatch, color, legend, seen_classes, stack

COLUMN_WIDTH = 320  # pixels
PANEL_TITLES = ("image", "label", "prediction", "errors")  # of an example with a label, from left to right
WRONG = (255, 70, 30)  # RGB; brighter than every pixel of the dimmed image
DIMMED = 0.45  # brightness of the image below the errors, of 1
IGNORED = Hatch(3, False, dark=(125, 125, 125), light=WHITE)


class Maps(NamedTuple):
    """What a row shows, in the size in which it is drawn: `image` uint8 [H, W, 3], the others uint8 [H, W]."""

    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray


def grid(
    examples: Sequence[Example], classes: Sequence[str], palette: Palette, *, width: int = COLUMN_WIDTH
) -> Image.Image:
    """A row for each example, of any size, under its id and mIoU, and a legend of what occurs in the rows.

    At least one example. `width`: of a column, in pixels.
    """
    sizes = [shown_size(example.prediction.shape, width) for example in examples]
    column_width = max(min(MIN_WIDTH, width), *(size[0] for size in sizes))
    maps = [resize(example, size) for example, size in zip(examples, sizes, strict=True)]
    titles = ["image", "prediction"] if all(part.label is None for part in maps) else [*PANEL_TITLES]
    sheet_width = len(titles) * (column_width + GAP) + GAP
    place = {"step": column_width + GAP, "below": GAP // 2}
    rows = [side_by_side([text_line([(title, BLACK)], column_width) for title in titles], sheet_width, **place)]
    for example, part in zip(examples, maps, strict=True):
        panels = [Image.fromarray(panel) for panel in draw_panels(part, palette)]
        rows += [caption(example, sheet_width), side_by_side(panels, sheet_width, **place)]
    return stack([*rows, legend(entries(maps, classes, palette), sheet_width)])


def example_row(example: Example, palette: Palette, width: int) -> np.ndarray:
    """The panels of an example side by side, each at most `width` wide: uint8 [h, w, 3]."""
    panels = draw_panels(resize(example, shown_size(example.prediction.shape, width)), palette)
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def resize(example: Example, size: tuple[int, int]) -> Maps:
    """In `size` (width, height). Class numbers are not mixed; an enlarged image keeps its pixels."""
    is_larger = size[0] >= example.prediction.shape[1]
    image = Image.fromarray(example.image.transpose(1, 2, 0))
    image = image.resize(size, Image.Resampling.NEAREST if is_larger else Image.Resampling.BOX)
    maps = (
        None if part is None else np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))
        for part in (example.label, example.prediction)
    )
    return Maps(np.asarray(image), *maps)


def draw_panels(maps: Maps, palette: Palette) -> list[np.ndarray]:
    """Image, label, prediction and errors, or without a label image and prediction: each uint8 [H, W, 3]."""
    prediction = color(maps.prediction, palette)
    if maps.label is None:
        return [maps.image, prediction]
    return [maps.image, color(maps.label, palette), prediction, draw_errors(maps)]


def draw_errors(maps: Maps) -> np.ndarray:
    """Wrong pixels in a bright color over the dimmed gray image, ignored ones hatched: uint8 [H, W, 3]."""
    gray = np.asarray(Image.fromarray(maps.image).convert("L"), np.float32)
    panel = np.repeat((DIMMED * gray).astype(np.uint8)[..., None], 3, axis=2)
    panel[is_wrong(maps)] = WRONG
    return IGNORED.draw(panel, maps.label == IGNORE_INDEX)


def is_wrong(maps: Maps) -> np.ndarray:
    """bool [H, W]"""
    return (maps.label != IGNORE_INDEX) & (maps.label != maps.prediction)


def caption(example: Example, width: int) -> Image.Image:
    """The id, and the mIoU of the image if it has labeled pixels."""
    details = [] if example.miou is None else [(f"mIoU {percent(example.miou)}", GRAY)]
    line = text_line([(example.key, BLACK), *details], width - 2 * GAP)
    return side_by_side([line], width, step=0, below=GAP // 2)


def entries(maps: Sequence[Maps], classes: Sequence[str], palette: Palette) -> list[tuple[str, Color | Hatch]]:
    """The classes that occur in label or prediction; wrong and ignored pixels, if there are any."""
    labels = [part.label for part in maps if part.label is not None]
    drawn = [*labels, *(part.prediction for part in maps)]
    found: list[tuple[str, Color | Hatch]] = [*seen_classes(drawn, classes, palette)]
    if any(is_wrong(part).any() for part in maps if part.label is not None):
        found.append(("wrong", WRONG))
    if any((label == IGNORE_INDEX).any() for label in labels):
        found.append(("ignored: white in the label", IGNORED))
    return found
