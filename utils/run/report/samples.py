"""Images with their labels, predictions and errors, as layers that the script switches."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from utils.constants import IGNORE_INDEX
from utils.palettes import Palette
from utils.run.report.content import Report, escape, percentage, swatch, table
from utils.scoring.visualize import Example, seen_classes

JPEG_QUALITY = 80
CORRECT, WRONG, IGNORED = 0, 1, 2  # values of the map of errors
ERROR_COLORS = [(0, 0, 0), (229, 57, 70), (140, 140, 140)]
STRIPE = 4  # pixels of the hatching of ignored pixels
VIEWS = (("all", "Side by side"), ("input", "Input"), ("truth", "Truth"), ("prediction", "Prediction"),
         ("errors", "Errors"))  # fmt: skip
NUM_LISTED = 20


def samples(report: Report) -> str:
    """The images spread over the set and the worst ones, the controls of both, and the lowest mIoU of images."""
    groups = [("Spread over the set", report.spread), ("Lowest mIoU", report.worst)]
    cards = "".join(
        f'<h3>{title}</h3><div class="cards">{"".join(card(example, report) for example in examples)}</div>'
        for title, examples in groups
        if examples
    )
    return f"{controls()}{legend(report)}{cards}{worst_table(report)}" if cards else ""


def controls() -> str:
    """One view for all images, and the opacity of labels over the image."""
    radios = "".join(
        f'<label><input type="radio" name="view" value="{key}"{" checked" if key == "prediction" else ""}>'
        f"<span>{title}</span></label>"
        for key, title in VIEWS
    )
    return (
        f'<div class="controls"><fieldset><legend>View of all images</legend>{radios}</fieldset>'
        '<label class="slider">Opacity <input type="range" id="opacity" min="0" max="100" value="80" '
        'aria-label="Opacity of the colors over the image, in percent"></label></div>'
        "<p>A click, a tap or Enter on an image shows its next view.</p>"
    )


def card(example: Example, report: Report) -> str:
    layers = {"input": jpeg_uri(example.image)}
    if example.label is not None:
        layers["truth"] = map_uri(example.label, report.palette)
    layers["prediction"] = map_uri(example.prediction, report.palette)
    if example.label is not None:
        layers["errors"] = errors_uri(example, num_classes=len(report.classes))
    height, width = example.prediction.shape
    titles = dict(VIEWS)
    images = "".join(
        f'<span class="layer {key}"><img src="{uri}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{titles[key]} of {escape(example.key)}"><span class="tag">{titles[key]}</span></span>'
        for key, uri in layers.items()
    )
    score = f"mIoU {percentage(example.miou)}" if example.label is not None else "no label"
    return (
        f'<figure class="sample" data-view="prediction" data-key="{escape(example.key)}"><button class="stage" '
        f'type="button" aria-label="{escape(example.key)}: show the next view">{images}</button><figcaption>'
        f'<span>{escape(example.key)}</span><span class="number">{score}</span></figcaption></figure>'
    )


def legend(report: Report) -> str:
    """The classes in the images, and the colors of the errors."""
    examples = [*report.spread, *report.worst]
    maps = [part for example in examples for part in (example.label, example.prediction) if part is not None]
    keys = seen_classes(maps, report.classes, report.palette)
    items = "".join(f"<span>{swatch(rgb)}{escape(name)}</span>" for name, rgb in keys)
    errors = f'<span>{swatch(ERROR_COLORS[WRONG])}wrong</span><span><i class="swatch hatched"></i>ignored</span>'
    return f'<div class="legend">{items}{errors}</div>'


def worst_table(report: Report) -> str:
    scored = [(key, *row) for key, row in report.image_scores.items() if row[0] is not None]
    scored.sort(key=lambda row: (row[1], row[0]))
    rows = [(key, percentage(miou), percentage(accuracy), f"{pixels:,}") for key, miou, accuracy, pixels in scored]
    if not rows:
        return ""
    header = ("image", "mIoU, %", "pixel accuracy, %", "labeled pixels")
    listed = table(header, rows[:NUM_LISTED], label="Images with the lowest mIoU")
    return f"<details><summary>The {len(rows[:NUM_LISTED])} images with the lowest mIoU</summary>{listed}</details>"


def jpeg_uri(image: np.ndarray) -> str:
    """uint8 [3, H, W]"""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, "jpeg", quality=JPEG_QUALITY)
    return data_uri("jpeg", buffer)


def map_uri(label: np.ndarray, palette: Palette) -> str:
    """Class numbers in the colors of `palette`; values beyond it are transparent."""
    return png_uri(label, palette, transparent=range(len(palette), 256))


def errors_uri(example: Example, *, num_classes: int) -> str:
    """Wrong pixels red, ignored ones hatched; right ones are transparent."""
    errors = np.where(example.label == example.prediction, CORRECT, WRONG).astype(np.uint8)
    y, x = np.ogrid[: errors.shape[0], : errors.shape[1]]
    hatched = np.where((x + y) // STRIPE % 2 == 0, IGNORED, CORRECT)
    is_ignored = (example.label == IGNORE_INDEX) | (example.label >= num_classes)
    errors = np.where(is_ignored, hatched, errors).astype(np.uint8)
    return png_uri(errors, ERROR_COLORS, transparent=[CORRECT])


def png_uri(values: np.ndarray, palette: Sequence, *, transparent: Iterable[int]) -> str:
    """Values uint8 [H, W] as a PNG with a palette of `palette` and black."""
    image = Image.fromarray(np.ascontiguousarray(values))
    image.putpalette([channel for rgb in palette for channel in rgb] + [0] * 3 * (256 - len(palette)))
    alpha = bytearray([255] * 256)
    for number in transparent:
        alpha[number] = 0
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=bytes(alpha), compress_level=1)  # level 6 takes four times as long
    return data_uri("png", buffer)


def data_uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
