"""Samples as the network gets them, drawn for people: image, label in color, padding and ignored pixels hatched."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.constants import IGNORE_INDEX
from utils.palettes import Palette
from utils.scoring.visualize import BLACK, GAP, GRAY, WHITE, Color, Hatch, blend, legend, seen_classes, stack

PADDING = Hatch(6, True, dark=(150, 150, 150), light=(215, 215, 215))
IGNORED = Hatch(2, False, dark=BLACK, light=WHITE)
OPACITY = 0.7  # of the labels' colors
SHEET_WIDTH, SHEET_HEIGHT = 1600, 1000  # pixels: it fills a desktop screen, and may be higher
MAX_COLUMNS = 4
MIN_WIDTH = 120  # pixels for an image: room for the text above
FONT_SIZE = 12  # pixels


class Sample(NamedTuple):
    """`image` uint8 [3, H, W]; `label` uint8 [H, W]; `padding` bool [H, W]; `details`: how it was made."""

    image: np.ndarray
    label: np.ndarray
    padding: np.ndarray
    id: str
    details: str

    @property
    def ignored(self) -> np.ndarray:
        """bool [H, W]: labeled 255, and no padding."""
        return (self.label == IGNORE_INDEX) & ~self.padding


def sample_sheet(samples: Sequence[Sample], classes: Sequence[str], palette: Palette, *, title: str) -> Image.Image:
    """Image and label of each sample side by side, under its id, in as many columns as fit; a legend below.

    At least one sample.
    """
    num_columns, width = choose_columns(samples)
    width = max(MIN_WIDTH, *(shown_size(sample.label.shape, width)[0] for sample in samples))
    cells = [draw_sample(sample, palette, width) for sample in samples]
    rows = [cells[start : start + num_columns] for start in range(0, len(cells), num_columns)]
    step = cells[0].width + 2 * GAP
    sheet_width = num_columns * step
    body = [side_by_side(row, sheet_width, step=step) for row in rows]
    headline = text_line([(title, BLACK)], sheet_width - 2 * GAP)
    return stack(
        [
            side_by_side([headline], sheet_width, step=step),
            *body,
            legend(entries(samples, classes, palette), sheet_width),
        ]
    )


def choose_columns(samples: Sequence[Sample]) -> tuple[int, int]:
    """(number of columns, width for an image): the fewest columns with which the sheet is at most SHEET_HEIGHT high."""
    aspect = max(sample.label.shape[0] / sample.label.shape[1] for sample in samples)
    most = min(MAX_COLUMNS, len(samples))
    for num_columns in range(1, most + 1):
        width = (SHEET_WIDTH // num_columns - 3 * GAP) // 2
        num_rows = -(-len(samples) // num_columns)
        if num_rows * aspect * width <= SHEET_HEIGHT:
            break
    return num_columns, width


def draw_sample(sample: Sample, palette: Palette, width: int) -> Image.Image:
    """A line of text; below it image and label, each in a column of `width` pixels."""
    image, label = panels(sample, palette, shown_size(sample.label.shape, width))
    caption = text_line([(sample.id, BLACK), (sample.details, GRAY)], 2 * width + GAP)
    cell = Image.new("RGB", (caption.width, caption.height + image.height), WHITE)
    cell.paste(caption, (0, 0))
    cell.paste(image, (0, caption.height))
    cell.paste(label, (width + GAP, caption.height))
    return cell


def shown_size(shape: tuple[int, int], width: int) -> tuple[int, int]:
    """(width, height) to draw `shape` (height, width) in: at most `width` wide and SHEET_HEIGHT high.

    An enlarged pixel becomes a square of whole pixels.
    """
    factor = min(width / shape[1], SHEET_HEIGHT / shape[0])
    factor = int(factor) if factor >= 1 else factor
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def panels(sample: Sample, palette: Palette, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """(image, label over the gray image), each resized to `size` (width, height), with padding hatched.

    Ignored pixels are hatched in the label; not one of them is lost where it shrinks.
    """
    is_larger = size[0] >= sample.label.shape[1]
    filter = Image.Resampling.NEAREST if is_larger else Image.Resampling.BOX
    image = np.asarray(Image.fromarray(sample.image.transpose(1, 2, 0)).resize(size, filter))
    label = np.asarray(Image.fromarray(sample.label).resize(size, Image.Resampling.NEAREST))
    padding = np.asarray(Image.fromarray(sample.padding).resize(size, Image.Resampling.NEAREST))
    ignored = np.asarray(Image.fromarray(255 * sample.ignored.astype(np.float32)).resize(size, filter)) > 0
    gray = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    colors = blend(gray, label, palette, label != IGNORE_INDEX, opacity=OPACITY)
    colors = IGNORED.draw(colors, ignored & ~padding)
    return Image.fromarray(PADDING.draw(image, padding)), Image.fromarray(PADDING.draw(colors, padding))


def side_by_side(images: Sequence[Image.Image], width: int, *, step: int, below: int = GAP) -> Image.Image:
    """`images` on white, `width` wide, one every `step` pixels, with `below` pixels of white under the highest."""
    row = Image.new("RGB", (width, max(image.height for image in images) + below), WHITE)
    for number, image in enumerate(images):
        row.paste(image, (GAP + number * step, 0))
    return row


def text_line(parts: Sequence[tuple[str, Color]], width: int) -> Image.Image:
    """Texts in their colors, one after the other; the first one loses its beginning if they are wider than `width`."""
    font = ImageFont.load_default(FONT_SIZE)
    image = Image.new("RGB", (width, round(1.7 * FONT_SIZE)), WHITE)
    (first, color), *others = parts
    rest = sum(font.getlength(f"  {text}") for text, _ in others)
    shown = first
    while len(shown) > 4 and font.getlength(shown) + rest > width:
        shown = f"...{shown[4:]}"
    draw, x = ImageDraw.Draw(image), 0.0
    for text, text_color in [(shown, color), *((f"  {text}", color) for text, color in others)]:
        draw.text((x, image.height / 2), text, text_color, font, anchor="lm")
        x += font.getlength(text)
    return image


def entries(samples: Sequence[Sample], classes: Sequence[str], palette: Palette) -> list[tuple[str, Color | Hatch]]:
    """The legend: the classes that occur, ignored pixels and padding if there are any."""
    found: list[tuple[str, Color | Hatch]] = [*seen_classes([sample.label for sample in samples], classes, palette)]
    if any(sample.ignored.any() for sample in samples):
        found.append(("ignored (255)", IGNORED))
    if any(sample.padding.any() for sample in samples):
        found.append(("padding (255)", PADDING))
    return found
