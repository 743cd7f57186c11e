"""Images for people: labels in color, and sheets of input | truth | prediction."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.palettes import Palette

GAP = 6
WHITE = (255, 255, 255)


class Example(NamedTuple):
    """One scored image: image uint8 [3, H, W], label (None where there is none) and prediction [H, W]."""

    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray


def to_examples(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> list[Example]:
    """The images of a batch, one by one."""
    return [Example(*parts) for parts in zip(image, label, prediction, strict=True)]


def color(label: np.ndarray, palette: Palette) -> np.ndarray:
    """Class numbers [H, W] -> uint8 [H, W, 3]; what is no class is white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = palette
    return table[label]


def example_row(example: Example, palette: Palette, width: int) -> np.ndarray:
    """Input, truth where there is one, and prediction side by side, each `width` wide: uint8 [h, w, 3]."""
    image, label, prediction = example.image.transpose(1, 2, 0), example.label, example.prediction
    labels = [prediction] if label is None else [label, np.where(label == 255, 255, prediction)]
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    row = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))]
    gap = np.full((size[1], GAP, 3), 255, np.uint8)
    for part in labels:
        colored = Image.fromarray(color(part, palette)).resize(size, Image.Resampling.NEAREST)
        row += [gap, np.asarray(colored)]
    return np.concatenate(row, axis=1)


def grid(examples: Sequence[Example], classes: Sequence[str], palette: Palette, *, width: int = 320) -> Image.Image:
    """A row an example, and the classes that occur with their colors below. White: not labeled, so not scored."""
    rows = [example_row(example, palette, width) for example in examples]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    body = np.concatenate([part for row in rows for part in (row, gap)])
    seen = np.unique(np.concatenate([part.ravel() for _, *parts in examples for part in parts if part is not None]))
    footer = legend([n for n in seen if n < len(classes)], classes, palette, body.shape[1])
    whole = Image.new("RGB", (body.shape[1], body.shape[0] + footer.height), WHITE)
    whole.paste(Image.fromarray(body), (0, 0))
    whole.paste(footer, (0, body.shape[0]))
    return whole


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def overlay(
    image: np.ndarray, label: np.ndarray, classes: Sequence[str], palette: Palette, *, opacity: float
) -> Image.Image:
    """The classes' colors over the image, uint8 [H, W, 3] under [H, W], of its size, with light lines between
    classes and a legend of those drawn in the lower left corner.

    A first class named background is left as it is.
    """
    is_drawn = (label < len(classes)) & ~((label == 0) & (classes[0] == "background"))
    mixed = np.where(is_drawn[..., None], (1 - opacity) * image + opacity * color(label, palette), image)
    # A class whose color is black or the image's own would else not be told from its neighbour
    mixed = np.where(class_borders(label)[..., None], (mixed + 255) / 2, mixed)
    whole = Image.fromarray(mixed.round().astype(np.uint8))
    if seen := np.unique(label[is_drawn]).tolist():
        corner = corner_legend(seen, classes, palette, whole.size)
        whole.paste(corner, (0, whole.height - corner.height), corner)
    return whole


def class_borders(label: np.ndarray) -> np.ndarray:
    """Whether the class changes from the pixel above or to the left: bool [H, W]."""
    changes = np.zeros(label.shape, bool)
    changes[1:] |= label[1:] != label[:-1]
    changes[:, 1:] |= label[:, 1:] != label[:, :-1]
    return changes


def corner_legend(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, size: tuple[int, int]
) -> Image.Image:
    """Light on half-transparent dark, RGBA, at most as wide as an image of `size` (width, height) and a third as high.

    The letters suit its size, but are smaller, down to 6 pixels, where many classes need it; what has no room then is
    cut off.
    """
    width, height = size[0], max(1, size[1] // 3)
    for letters in range(min(28, max(8, min(size) // 32)), 5, -1):
        boxes = [columns(numbers, classes, palette, count, letters) for count in range(1, min(len(numbers), 8) + 1)]
        fitting = [box for box in boxes if box.width <= width and box.height <= height]
        if fitting:
            return min(fitting, key=lambda box: box.width * box.height)
    return boxes[0].crop((0, 0, min(width, boxes[0].width), min(height, boxes[0].height)))


def columns(numbers: Sequence[int], classes: Sequence[str], palette: Palette, count: int, letters: int) -> Image.Image:
    """Swatches with class names in `count` columns, RGBA, `letters` pixels high."""
    font, line, lines = ImageFont.load_default(letters), round(1.3 * letters), -(-len(numbers) // count)
    parts = [numbers[start : start + lines] for start in range(0, len(numbers), lines)]
    widths = [max(entry_width(classes[number], font, letters) for number in part) for part in parts]
    image = Image.new("RGBA", (sum(widths), lines * line + letters // 2), (0, 0, 0, 128))
    pen, x = ImageDraw.Draw(image), letters // 2
    for part, width in zip(parts, widths, strict=True):
        for row, number in enumerate(part):
            draw_entry(pen, (x, row * line + letters // 3), classes[number], palette[number], font, letters, WHITE)
        x += width
    return image


def legend(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, width: int, letters: int = 13
) -> Image.Image:
    """Swatches with class names on white, in as many lines as `width` needs; `letters` is their height in pixels."""
    font, line, places, x, y = ImageFont.load_default(letters), round(1.5 * letters), [], GAP, 0
    for number in numbers:
        needed = entry_width(classes[number], font, letters)
        if x + needed > width and x > GAP:
            x, y = GAP, y + line
        places.append((number, (x, y + letters // 4)))
        x += needed
    image = Image.new("RGB", (width, y + line + letters // 3), WHITE)
    for number, place in places:
        draw_entry(ImageDraw.Draw(image), place, classes[number], palette[number], font, letters, (0, 0, 0))
    return image


def entry_width(name: str, font: ImageFont.ImageFont, letters: int) -> int:
    """A swatch, a gap, the name, and the distance to the next entry."""
    return round(1.4 * letters) + letters // 2 + int(font.getlength(name)) + letters


def draw_entry(
    pen: ImageDraw.ImageDraw, place: tuple[int, int], name: str, swatch: tuple[int, int, int],
    font: ImageFont.ImageFont, letters: int, ink: tuple[int, int, int],
) -> None:  # fmt: skip
    """A swatch and a name from `place` (left, top) on."""
    x, y = place
    right = x + round(1.4 * letters)
    pen.rectangle((x, y, right, y + letters), fill=tuple(swatch), outline=(128, 128, 128))
    pen.text((right + letters // 2, y + letters / 2), name, ink, font, anchor="lm")
