"""Images for people: labels in color, overlays with a legend, and what sheets of images share."""

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.distinct_colors import has_background
from utils.palettes import Palette

GAP = 6  # pixels between images
LEGEND_FONT_SIZE = 13  # pixels
BLENDED_PIXELS = 2**16  # at once: in float64 a large image would take gigabytes, and more than the cache is slower
Color = tuple[int, int, int]  # RGB, 0..255
WHITE, GRAY, BLACK = (255, 255, 255), (128, 128, 128), (0, 0, 0)


class Example(NamedTuple):
    """A scored image: `image` uint8 [3, H, W]; `label` (None without labels) and `prediction` uint8 [H, W].

    `key`: its id. `miou` (0..1) over the classes in its label or prediction; None without a labeled pixel.
    """

    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray
    key: str = ""
    miou: float | None = None


class Hatch(NamedTuple):
    """Diagonal stripes in two colors, each `stripe` pixels wide, rising to the right or falling."""

    stripe: int
    is_rising: bool
    dark: Color
    light: Color

    def is_dark(self, height: int, width: int) -> np.ndarray:
        """bool [height, width]"""
        y, x = np.ogrid[:height, :width]
        return (x + y if self.is_rising else x - y) // self.stripe % 2 == 0

    def draw(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """`image` uint8 [H, W, 3], hatched where `mask` bool [H, W] is set."""
        stripes = np.where(self.is_dark(*mask.shape)[..., None], self.dark, self.light)
        return np.where(mask[..., None], stripes, image).astype(np.uint8)


def color(label: np.ndarray, palette: Palette) -> np.ndarray:
    """Class numbers [H, W] -> uint8 [H, W, 3]; numbers beyond the palette become white."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(palette)] = palette
    return table[label]


def stack(images: Sequence[Image.Image]) -> Image.Image:
    """One above the other, on white."""
    canvas = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), WHITE)
    y = 0
    for image in images:
        canvas.paste(image, (0, y))
        y += image.height
    return canvas


def png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    classes: Sequence[str],
    palette: Palette,
    *,
    opacity: float,
    named: Iterable[int] | None = None,
) -> Image.Image:
    """The colors of `label` uint8 [H, W] over `image` uint8 [H, W, 3], with light lines between classes.

    A legend in the lower left corner names the classes drawn, or those `named`. A first class named background is not
    drawn. `opacity` 0..1 is that of the colors.
    """
    is_drawn = drawn_pixels(label, classes)
    canvas = Image.fromarray(blend(image, label, palette, is_drawn, opacity=opacity))
    if numbers := np.unique(label[is_drawn]).tolist() if named is None else sorted(named):
        corner = corner_legend(numbers, classes, palette, canvas.size)
        canvas.paste(corner, (0, canvas.height - corner.height), corner)
    return canvas


def drawn_pixels(label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Where an overlay has a class's color: bool [H, W]."""
    return (label < len(classes)) & ~((label == 0) & has_background(classes))


def blend(
    image: np.ndarray, label: np.ndarray, palette: Palette, is_drawn: np.ndarray, *, opacity: float
) -> np.ndarray:
    """The colors of `label` uint8 [H, W] over `image` uint8 [H, W, 3] where `is_drawn` [H, W], and lines between them.

    Not torchvision's draw_segmentation_masks: it rounds down and takes a mask for each class, so its time and memory
    grow with their number.
    """
    result, is_border = np.empty_like(image), class_borders(label)
    step = max(1, BLENDED_PIXELS // image.shape[1])
    for top in range(0, len(image), step):
        rows = slice(top, top + step)
        mixed = (1 - opacity) * image[rows] + opacity * color(label[rows], palette)
        mixed = np.where(is_drawn[rows][..., None], mixed, image[rows])
        # A class whose color is black or the image's own would otherwise merge with its neighbor
        mixed = np.where(is_border[rows][..., None], (mixed + 255) / 2, mixed)
        result[rows] = mixed.round()
    return result


def class_borders(label: np.ndarray) -> np.ndarray:
    """Whether the class differs from that of the pixel above or to the left: bool [H, W]."""
    is_border = np.zeros(label.shape, bool)
    is_border[1:] |= label[1:] != label[:-1]
    is_border[:, 1:] |= label[:, 1:] != label[:, :-1]
    return is_border


def corner_legend(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, size: tuple[int, int]
) -> Image.Image:
    """White text on half-transparent black, RGBA, at most as wide as an image of `size` (width, height) and a third of
    its height.

    The font size follows the image's, and shrinks down to 6 pixels until all classes fit; then the rest is cut off.
    """
    width, height = size[0], max(1, size[1] // 3)
    for font_size in range(min(28, max(8, min(size) // 32)), 5, -1):
        boxes = [columns(numbers, classes, palette, count, font_size) for count in range(1, min(len(numbers), 8) + 1)]
        fitting = [box for box in boxes if box.width <= width and box.height <= height]
        if fitting:
            return min(fitting, key=lambda box: box.width * box.height)
    return boxes[0].crop((0, 0, min(width, boxes[0].width), min(height, boxes[0].height)))


def columns(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, count: int, font_size: int
) -> Image.Image:
    """Swatches and names of the classes `numbers` in `count` columns, RGBA; `font_size` in pixels."""
    font, line_height, num_lines = ImageFont.load_default(font_size), round(1.3 * font_size), -(-len(numbers) // count)
    parts = [numbers[start : start + num_lines] for start in range(0, len(numbers), num_lines)]
    widths = [max(entry_width(classes[number], font) for number in part) for part in parts]
    image = Image.new("RGBA", (sum(widths), num_lines * line_height + font_size // 2), (0, 0, 0, 128))
    draw, x = ImageDraw.Draw(image), font_size // 2
    for part, width in zip(parts, widths, strict=True):
        for row, number in enumerate(part):
            draw_entry(draw, (x, row * line_height + font_size // 3), classes[number], palette[number], font, WHITE)
        x += width
    return image


def seen_classes(
    maps: Iterable[np.ndarray], classes: Sequence[str], palette: Palette
) -> list[tuple[str, tuple[int, int, int]]]:
    """(name, color) of the classes that occur in any of `maps`, uint8 [H, W], by number."""
    seen = np.unique(np.concatenate([np.unique(values) for values in maps]))
    return [(classes[number], palette[number]) for number in seen[seen < len(classes)]]


def legend(entries: Sequence[tuple[str, Color | Hatch]], width: int) -> Image.Image:
    """Names with their swatches on white, `width` wide, in as many lines as they need."""
    font, line_height = ImageFont.load_default(LEGEND_FONT_SIZE), round(1.5 * LEGEND_FONT_SIZE)
    positions, x, y = [], GAP, 0
    for name, _ in entries:
        needed = entry_width(name, font)
        if x + needed > width and x > GAP:
            x, y = GAP, y + line_height
        positions.append((x, y + LEGEND_FONT_SIZE // 4))
        x += needed
    image = Image.new("RGB", (width, y + line_height + LEGEND_FONT_SIZE // 3), WHITE)
    draw = ImageDraw.Draw(image)
    for (name, swatch), position in zip(entries, positions, strict=True):
        draw_entry(draw, position, name, swatch, font, BLACK)
    return image


def entry_width(name: str, font: ImageFont.FreeTypeFont) -> int:
    """The width of a swatch, a gap, the name, and the space before the next entry."""
    return round(1.4 * font.size) + font.size // 2 + int(font.getlength(name)) + font.size


def draw_entry(
    draw: ImageDraw.ImageDraw, position: tuple[int, int], name: str, swatch: Color | Hatch,
    font: ImageFont.FreeTypeFont, text_color: Color,
) -> None:  # fmt: skip
    """Draw a swatch and a name with their upper left corner at `position` (x, y)."""
    x, y = position
    right = x + round(1.4 * font.size)
    if isinstance(swatch, Hatch):
        draw.rectangle((x, y, right, y + font.size), fill=swatch.light)
        stripes = swatch.is_dark(round(font.size) + 1, right - x + 1)
        draw.bitmap((x, y), Image.fromarray(stripes), fill=swatch.dark)
    fill = None if isinstance(swatch, Hatch) else tuple(swatch)
    draw.rectangle((x, y, right, y + font.size), fill=fill, outline=GRAY)
    draw.text((right + font.size // 2, y + font.size / 2), name, text_color, font, anchor="lm")
