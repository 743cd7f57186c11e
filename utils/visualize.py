"""Pictures for people: labels in colour, and sheets of input | truth | prediction."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6
WHITE = (255, 255, 255)
Palette = Sequence[tuple[int, int, int]]


class Example(NamedTuple):
    """One scored picture: image uint8 [3, H, W], label (None where there is none) and prediction [H, W]."""

    image: np.ndarray
    label: np.ndarray | None
    prediction: np.ndarray


def to_examples(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> list[Example]:
    """The pictures of a batch, one by one."""
    return [Example(*parts) for parts in zip(image, label, prediction, strict=True)]


def colour(label: np.ndarray, palette: Palette) -> np.ndarray:
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
        coloured = Image.fromarray(colour(part, palette)).resize(size, Image.Resampling.NEAREST)
        row += [gap, np.asarray(coloured)]
    return np.concatenate(row, axis=1)


def sheet(examples: Sequence[Example], classes: Sequence[str], palette: Palette, *, width: int = 320) -> Image.Image:
    """A row an example, and the classes that occur with their colours below. White: not labelled, so not scored."""
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
    """The classes' colours over the picture, uint8 [H, W, 3] under [H, W], of its size, with a legend at its foot.

    A first class named background is left as it is.
    """
    is_drawn = (label < len(classes)) & ~((label == 0) & (classes[0] == "background"))
    mixed = (1 - opacity) * image + opacity * colour(label, palette)
    whole = Image.fromarray(np.where(is_drawn[..., None], mixed, image).round().astype(np.uint8))
    seen = np.unique(label[is_drawn]).tolist()
    if seen:
        foot = fitting_legend(seen, classes, palette, whole.size)
        box = (0, whole.height - foot.height, whole.width, whole.height)
        whole.paste(Image.blend(whole.crop(box), foot, 0.85), box)
    return whole


def fitting_legend(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, size: tuple[int, int]
) -> Image.Image:
    """In letters that suit a picture of `size` (width, height), smaller ones where it would cover a third of it."""
    letters = min(28, max(8, min(size) // 28))
    foot = legend(numbers, classes, palette, size[0], letters)
    while foot.height > size[1] / 3 and letters > 6:
        letters -= 1
        foot = legend(numbers, classes, palette, size[0], letters)
    return foot.crop((0, 0, size[0], min(foot.height, size[1])))


def legend(
    numbers: Sequence[int], classes: Sequence[str], palette: Palette, width: int, letters: int = 13
) -> Image.Image:
    """Swatches with class names, in as many lines as `width` needs; `letters` is their height in pixels."""
    font, line, places, x, y = ImageFont.load_default(letters), round(1.5 * letters), [], GAP, 0
    swatch, gap = round(1.4 * letters), letters // 2
    for number in numbers:
        needed = swatch + gap + int(font.getlength(classes[number])) + letters
        if x + needed > width and x > GAP:
            x, y = GAP, y + line
        places.append((number, x, y))
        x += needed
    image = Image.new("RGB", (width, y + line + letters // 3), WHITE)
    pen = ImageDraw.Draw(image)
    for number, x, y in places:
        box = (x, y + letters // 4, x + swatch, y + letters // 4 + letters)
        pen.rectangle(box, fill=tuple(palette[number]), outline=(128, 128, 128))
        pen.text((x + swatch + gap, y + letters // 4 + letters / 2), classes[number], (0, 0, 0), font, anchor="lm")
    return image
