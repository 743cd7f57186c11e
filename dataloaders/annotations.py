"""COCO's annotation files: read, checked, and cut down to the objects of VOC's classes."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from dataloaders.layout import Report
from errors import UserError
from utils.distributed import say

MIN_NUMBERS = 6  # of a polygon: three corners; pycocotools takes fewer for a box, or fails
LISTS = ("images", "annotations", "categories")


def read_annotations(
    path: Path, class_of: Mapping[int, int], report: Report
) -> tuple[dict[int, dict], dict[int, list[tuple]]]:
    """(picture by key, (class, is crowd, outline) by key of the objects whose category is in `class_of`)."""
    content = load(path)
    check_content(path, content, class_of)
    pictures = {picture["id"]: picture for picture in content["images"]}
    objects: dict[int, list[tuple]] = {}
    problems, num_left_out = [], 0
    for entry in content["annotations"]:
        if not isinstance(entry, dict) or not {"image_id", "category_id", "segmentation"} <= set(entry):
            problems.append(f"{path} has an annotation without image_id, category_id or segmentation: {shown(entry)}")
        elif entry["image_id"] not in pictures:
            problems.append(f"{path} annotates the image {entry['image_id']}, which it does not list: take it out")
        elif entry["category_id"] in class_of:
            outline, few = usable_outline(entry["segmentation"])
            num_left_out += few
            if outline is None and not few:
                problems.append(f"{path} has an outline that is no polygons and no run lengths: {shown(entry)}")
            elif outline:
                row = (class_of[entry["category_id"]], bool(entry.get("iscrowd")), outline)
                objects.setdefault(entry["image_id"], []).append(row)
    report(problems)
    if num_left_out:
        say(f"{path}: {num_left_out} polygons of fewer than {MIN_NUMBERS} numbers are left out")
    return pictures, objects


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
    wanted = {"id", "file_name", "height", "width"}
    strange = next((entry for entry in content["images"] if not isinstance(entry, dict) or wanted - set(entry)), None)
    if strange is not None:
        raise UserError(f"{path} lists an image without {', '.join(sorted(wanted))}: {shown(strange)}")


def usable_outline(outline: object) -> tuple[list | dict | None, int]:
    """(polygons, or run lengths compressed or not, or None; how many polygons were left out as too short)."""
    if isinstance(outline, dict) and isinstance(outline.get("counts"), list | str) and "size" in outline:
        return outline, 0
    if not isinstance(outline, list) or not all(isinstance(polygon, list) for polygon in outline):
        return None, 0
    kept = [polygon for polygon in outline if len(polygon) >= MIN_NUMBERS]
    return kept or None, len(outline) - len(kept)


def shown(entry: object) -> str:
    text = json.dumps(entry)
    return text if len(text) < 100 else f"{text[:100]}..."
