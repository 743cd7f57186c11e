"""labelme JSON: a file an image, with polygons, rectangles, circles and masks. Later shapes cover earlier ones."""

import base64
import binascii
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
from PIL import Image, ImageDraw

from dataloaders.checks.annotations import MAX_COORDINATE
from dataloaders.formats.classes import ClassList
from dataloaders.formats.match import File
from dataloaders.formats.names import make_table
from dataloaders.formats.pixels import count_codes
from dataloaders.formats.source import Item, Reading, Source, raise_all
from utils.errors import UserError

# Shapes with an area -> the fewest points
MIN_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}


def with_key(file: File, content: Mapping) -> File:
    """`file` with the stem of the image that it names (a path of any system), else with its own."""
    name = content.get("imagePath")
    return file._replace(key=PureWindowsPath(name).stem.strip()) if isinstance(name, str) and name else file


class Labelme(Source):
    """Shapes drawn over the background, in the order of the file."""

    kind = "labelme file"
    is_upright = True  # labelme turns an image by its EXIF orientation before it shows it

    def __init__(
        self, items: Sequence[Item], contents: Mapping[Path, Mapping], *,
        classes: ClassList | None, ignore: Sequence[str], unknown: str | None,
    ):  # fmt: skip
        self.items = items
        self.contents = {item.label: contents[item.label] for item in items}
        raise_all([problem for path, content in self.contents.items() for problem in file_problems(path, content)])
        shapes = [shape for content in self.contents.values() for shape in content["shapes"]]
        lines = Counter(kind(shape) for shape in shapes if kind(shape) not in MIN_POINTS)
        self.notes = [f"{count} shapes are a {name} without area: they are left out" for name, count in lines.items()]
        used = Counter(shape["label"] for shape in shapes if kind(shape) in MIN_POINTS)
        self.class_file = str(classes.file if classes else "the labels")
        source = next(iter(self.contents)).parent
        self.table = make_table(used, sorted(used), classes, source=source, ignore=ignore, unknown=unknown)
        self.classes, self.colors = self.table.classes, self.table.colors

    def read_label(self, item: Item) -> tuple[Image.Image, Reading]:
        content = self.contents[item.label]
        label = Image.new("L", (content["imageWidth"], content["imageHeight"]), self.table.fill)
        for shape in content["shapes"]:
            number = self.table.numbers.get(shape["label"])
            if kind(shape) in MIN_POINTS and number is not None:
                draw_shape(label, shape, number, item.label)
        return label, Reading(count_codes(label))


def kind(shape: Mapping) -> str:
    return str(shape.get("shape_type") or "polygon")  # files of labelme 3 have no type


def draw_shape(label: Image.Image, shape: Mapping, number: int, path: Path) -> None:
    points = [tuple(map(float, point)) for point in shape["points"]]
    draw = ImageDraw.Draw(label)
    if kind(shape) == "polygon":
        draw.polygon(points, fill=number, outline=number)
    elif kind(shape) == "circle":  # center, and a point of the edge
        (x, y), radius = points[0], np.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1])
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=number, outline=number)
    else:
        (left, right), (top, bottom) = (sorted(values) for values in zip(*points[:2], strict=True))
        if kind(shape) == "rectangle":
            draw.rectangle((left, top, right, bottom), fill=number, outline=number)
        else:
            label.paste(number, (round(left), round(top)), decode_mask(shape, path))


def decode_mask(shape: Mapping, path: Path) -> Image.Image:
    """The PNG file of a mask, base64 text, as mode 1. Its place is the first corner of the shape."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or "", validate=True)))
        return image.convert("L").point(lambda value: 255 * (value > 0)).convert("1")
    except (OSError, ValueError, binascii.Error) as error:
        raise UserError(f"{path} has a mask of {shape['label']!r} that is no PNG ({error}): draw it again") from error


def file_problems(path: Path, content: Mapping) -> list[str]:
    """What is wrong with the content of a file."""
    sizes = [content.get(name) for name in ("imageHeight", "imageWidth")]
    if not all(type(size) is int and 0 < size < MAX_COORDINATE for size in sizes):
        return [f"{path} has no imageHeight and imageWidth in pixels: open and save it in labelme"]
    if not isinstance(content["shapes"], list):
        return [f"{path} holds no list of shapes: open and save it in labelme"]
    problems = [problem for shape in content["shapes"] if (problem := shape_problem(shape))]
    return [f"{path} has a shape that {problem}: correct it in labelme" for problem in problems]


def shape_problem(shape: object) -> str | None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"]:
        return "has no label"
    if kind(shape) not in MIN_POINTS:
        return None
    points = shape.get("points")
    if not isinstance(points, list) or len(points) < MIN_POINTS[kind(shape)]:
        return f"is a {kind(shape)} {shape['label']!r} of too few points"
    are_pairs = all(isinstance(point, list) and len(point) == 2 for point in points)
    if not are_pairs or not all(type(x) in (int, float) and abs(x) < MAX_COORDINATE for point in points for x in point):
        return f"is a {kind(shape)} {shape['label']!r} with points that are not two coordinates in pixels"
    return None
