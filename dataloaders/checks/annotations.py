"""COCO's annotation files: read, checked, and reduced to the objects of given categories.

Every number of an outline is checked: with an invalid one pycocotools fails or reads invalid memory.
"""

import json
from array import array
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloaders.checks.layout import Report
from utils.errors import UserError

MIN_NUMBERS = 6  # of a polygon, three corners: pycocotools takes four numbers for a box and fails on fewer
MAX_CHARACTERS = 7  # of a compressed run length: 35 bits, more than any image has pixels
MAX_COORDINATE = 1e6  # pixels: pycocotools visits every pixel of an edge; the comparison excludes NaN too
IMAGE_FIELDS = {"file_name": str, "height": int, "id": int, "width": int}
LISTS = ("images", "annotations", "categories")

# Polygons [x0, y0, x1, y1, ...] in pixels, lists or arrays, or run lengths {"size": [H, W], "counts": ...}
Outline = list | dict


class Annotations(NamedTuple):
    """What a file holds, by COCO's image id. The objects of an image are in the order of the file."""

    images: dict[int, dict]
    objects: dict[int, list[tuple[int, bool, Outline]]]  # (class, is_crowd, outline)
    num_short: int  # polygons left out because they have fewer than MIN_NUMBERS numbers


def read_annotations(path: Path, class_of: Mapping[int, int], report: Report) -> Annotations:
    """The images of a file, and the objects whose category is in `class_of` (category -> class).

    Raises UserError if the file as a whole is not COCO's. Invalid objects are reported and left out.
    """
    content = read_json(path, lambda entry: pack_outline(entry, class_of))
    check_content(path, content)
    category_ids = {entry.get("id") for entry in content["categories"] if isinstance(entry, dict)}
    if not category_ids & set(class_of):
        raise UserError(f"{path} has none of COCO's categories that are VOC's classes: use COCO's own annotations")
    return select_objects(path, content, class_of, report)


def select_objects(path: Path, content: dict, class_of: Mapping[int, int], report: Report) -> Annotations:
    """As `read_annotations`, of a checked `content`; `path` is for messages."""
    images = {image["id"]: image for image in content["images"]}
    objects: dict[int, list[tuple]] = {}
    problems, num_short = [], 0
    for entry in content["annotations"]:
        if problem := annotation_problem(entry, images, class_of):
            problems.append(f"{path} {problem}: {abbreviate(entry)}: correct it, or download the file again")
        elif entry["category_id"] in class_of:
            outline, num_removed = remove_short_polygons(entry["segmentation"])
            num_short += num_removed
            if outline:
                row = (class_of[entry["category_id"]], bool(entry.get("iscrowd")), outline)
                objects.setdefault(entry["image_id"], []).append(row)
    report(problems)
    return Annotations(images, objects, num_short)


def pack_outline(entry: dict, class_of: Collection[int]) -> dict:
    """An annotation with its polygons as arrays of float64, a quarter of the memory that Python's numbers take.

    Without the outline if the category is not in `class_of`, and without the box, which nobody reads. Other objects,
    and what is no number in a polygon, stay as they are.
    """
    if "segmentation" in entry:
        entry.pop("bbox", None)
        category, outline = entry.get("category_id"), entry["segmentation"]
        if type(category) is int and category not in class_of:
            entry["segmentation"] = None
        elif isinstance(outline, list):
            entry["segmentation"] = [pack_polygon(polygon) for polygon in outline]
    return entry


def pack_polygon(polygon: object) -> object:
    if isinstance(polygon, list) and set(map(type, polygon)) <= {int, float}:
        try:
            return array("d", polygon)
        except OverflowError:  # of an integer: far outside of any image
            pass
    return polygon


def read_json(path: Path, change: Callable[[dict], object] | None = None) -> dict:
    """`change` gets each object of the file, the inner ones first, and returns what replaces it."""
    try:
        content = json.loads(path.read_bytes(), object_hook=change)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as text ({error}): save it in UTF-8") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a complete JSON file ({error}): download it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not COCO's instance annotations: download it again")
    return content


def check_content(path: Path, content: dict) -> None:
    """Raise UserError if the file does not hold instance annotations."""
    for name in LISTS:
        if not isinstance(content.get(name), list) or not content[name]:
            raise UserError(f"{path} has no {name}: COCO's instance annotations are needed")
    invalid = next((entry for entry in content["images"] if not is_image(entry)), None)
    if invalid is not None:
        fields = ", ".join(IMAGE_FIELDS)
        raise UserError(f"{path} lists an image without {fields}: {abbreviate(invalid)}: download it again")


def is_image(entry: object) -> bool:
    has_fields = isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in IMAGE_FIELDS.items())
    return has_fields and entry["height"] > 0 and entry["width"] > 0


def annotation_problem(entry: object, images: Mapping[int, dict], categories: Collection[int]) -> str | None:
    """What is wrong with an annotation; None if it is valid or of another category."""
    if not isinstance(entry, dict) or not {"image_id", "category_id", "segmentation"} <= set(entry):
        return "has an annotation without image_id, category_id or segmentation"
    if entry["image_id"] not in images:
        return f"annotates the image {entry['image_id']}, which it does not list"
    if entry["category_id"] not in categories:
        return None
    image = images[entry["image_id"]]
    problem = outline_problem(entry["segmentation"], image["height"], image["width"])
    return problem and f"has an outline in image {entry['image_id']} that {problem}"


def outline_problem(outline: object, height: int, width: int) -> str | None:
    """Why pycocotools cannot draw `outline` into an image of this size; None if it can."""
    if isinstance(outline, list) and outline and all(isinstance(polygon, list | array) for polygon in outline):
        return polygons_problem(outline)
    if not isinstance(outline, dict) or not isinstance(outline.get("counts"), list | str):
        return "is neither polygons nor run lengths"
    if outline.get("size") != [height, width]:
        return f"has the size {outline.get('size')}, not the image's [{height}, {width}]"
    counts = outline["counts"] if isinstance(outline["counts"], list) else decode_counts(outline["counts"]).tolist()
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
        return "has run lengths that do not fill the image"
    return None


def polygons_problem(outline: list[list | array]) -> str | None:
    polygons, _ = remove_short_polygons(outline)
    if not all(map(has_coordinates, polygons)):
        return "holds values that are not coordinates in pixels"
    return "has an odd number of coordinates" if any(len(polygon) % 2 for polygon in polygons) else None


def has_coordinates(polygon: list | array) -> bool:
    if isinstance(polygon, array):
        return bool(np.abs(np.frombuffer(polygon)).max() < MAX_COORDINATE)
    return all(type(number) in (int, float) and abs(number) < MAX_COORDINATE for number in polygon)


def remove_short_polygons(outline: Outline) -> tuple[Outline, int]:
    """(polygons of three corners or more, number of the others); run lengths unchanged."""
    if isinstance(outline, dict):
        return outline, 0
    polygons = [polygon for polygon in outline if len(polygon) >= MIN_NUMBERS]
    return polygons, len(outline) - len(polygons)


def decode_counts(text: str) -> np.ndarray:
    """Compressed run lengths as int64 numbers (pycocotools, rleFrString in maskApi.c).

    A character holds five bits of a number, the lowest first. From the fourth number on, the text has the difference
    to the number before the previous one. A number of too many characters gives [-1], which is no run length.
    """
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)  # of each number; the others are followed by more bits of it
    if not last.size:
        return np.zeros(0, np.int64)
    first = np.concatenate(([0], last[:-1] + 1))
    if (last - first).max() >= MAX_CHARACTERS:
        return np.array([-1])
    codes = codes[: last[-1] + 1]
    shifts = 5 * (np.arange(codes.size) - np.repeat(first, last - first + 1))
    counts = np.add.reduceat((codes & 31) << shifts, first)
    counts -= (codes[last] & 16) << (shifts[last] + 1)  # sign
    counts[1::2], counts[2::2] = np.cumsum(counts[1::2]), np.cumsum(counts[2::2])
    return counts


def abbreviate(entry: object) -> str:
    text = json.dumps(entry, default=list)
    return text if len(text) < 100 else f"{text[:100]}..."
