"""COCO's annotation files: read, checked, and cut down to the objects of VOC's classes.

Outlines are checked to the last number, since pycocotools fails over some faulty ones and draws what lies about in
memory for others.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from dataloaders.checks.layout import Report
from utils.errors import UserError

MIN_NUMBERS = 6  # of a polygon: three corners; pycocotools takes fewer for a box, or fails
FAR = 1e6  # pixels: pycocotools walks along every edge, and over numbers that are none
IMAGE = {"file_name": str, "height": int, "id": int, "width": int}
LISTS = ("images", "annotations", "categories")


def read_annotations(
    path: Path, class_of: Mapping[int, int], report: Report
) -> tuple[dict[int, dict], dict[int, list[tuple]], int]:
    """(image by key, (class, is crowd, outline) by key of the objects whose category is in `class_of`, how many
    polygons were left out as too short). What is damaged is reported and left out.
    """
    content = load(path)
    check_content(path, content, class_of)
    images = {image["id"]: image for image in content["images"]}
    objects: dict[int, list[tuple]] = {}
    problems, num_short = [], 0
    for entry in content["annotations"]:
        if fault := annotation_problem(entry, images, class_of):
            problems.append(f"{path} {fault}: {abbreviated(entry)}: correct it, or get the file again")
        elif entry["category_id"] in class_of:
            outline, num_more = without_short_polygons(entry["segmentation"])
            num_short += num_more
            if outline:
                row = (class_of[entry["category_id"]], bool(entry.get("iscrowd")), outline)
                objects.setdefault(entry["image_id"], []).append(row)
    report(problems)
    return images, objects, num_short


def load(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no whole JSON file ({error}): get it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not COCO's instance annotations: get it again")
    return content


def check_content(path: Path, content: dict, categories: Collection[int]) -> None:
    """Raise UserError where the file is not of COCO's instances."""
    for name in LISTS:
        if not isinstance(content.get(name), list) or not content[name]:
            raise UserError(f"{path} has no {name}: the instance annotations of COCO 2017 are needed")
    found = {entry.get("id") for entry in content["categories"] if isinstance(entry, dict)}
    if not found & set(categories):
        raise UserError(f"{path} has none of COCO's categories that are VOC's classes: get COCO's own annotations")
    invalid = next((entry for entry in content["images"] if not is_image(entry)), None)
    if invalid is not None:
        raise UserError(f"{path} lists an image without {', '.join(IMAGE)}: {abbreviated(invalid)}: get it again")


def is_image(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in IMAGE.items())


def annotation_problem(entry: object, images: Mapping[int, dict], categories: Collection[int]) -> str | None:
    """What is wrong about an annotation, if anything is."""
    if not isinstance(entry, dict) or not {"image_id", "category_id", "segmentation"} <= set(entry):
        return "has an annotation without image_id, category_id or segmentation"
    if entry["image_id"] not in images:
        return f"annotates the image {entry['image_id']}, which it does not list"
    if entry["category_id"] not in categories:
        return None
    image = images[entry["image_id"]]
    fault = segmentation_problem(entry["segmentation"], image["height"], image["width"])
    return fault and f"has an outline in image {entry['image_id']} that {fault}"


def segmentation_problem(outline: object, height: int, width: int) -> str | None:
    """Why pycocotools cannot draw `outline` into an image of this size, if it cannot."""
    if isinstance(outline, list) and outline and all(isinstance(polygon, list) for polygon in outline):
        polygons, _ = without_short_polygons(outline)
        if not all(type(number) in (int, float) and abs(number) < FAR for polygon in polygons for number in polygon):
            return "holds other than coordinates in pixels"
        return "has an odd number of coordinates" if any(len(polygon) % 2 for polygon in polygons) else None
    if not isinstance(outline, dict) or not isinstance(outline.get("counts"), list | str):
        return "is no polygons and no run lengths"
    if outline.get("size") != [height, width]:
        return f"has the size {outline.get('size')}, not the image's [{height}, {width}]"
    counts = outline["counts"] if isinstance(outline["counts"], list) else expanded(outline["counts"])
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
        return "has run lengths that do not fill the image"
    return None


def without_short_polygons(outline: list | dict) -> tuple[list | dict, int]:
    """(polygons of three corners or more, how many had fewer); run lengths as they are."""
    if isinstance(outline, dict):
        return outline, 0
    kept = [polygon for polygon in outline if len(polygon) >= MIN_NUMBERS]
    return kept, len(outline) - len(kept)


def expanded(text: str) -> list[int]:
    """Compressed run lengths as numbers: five bits a character, from the fourth on what is added to the last but one
    (pycocotools, rleFrString in maskApi.c).
    """
    counts, value, shift = [], 0, 0
    for code in text.encode():
        code -= 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:  # more of this number follows
            continue
        value -= (code & 16) << (shift - 4)  # its sign
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts


def abbreviated(entry: object) -> str:
    text = json.dumps(entry)
    return text if len(text) < 100 else f"{text[:100]}..."
