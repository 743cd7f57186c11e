"""Pascal Context (Mottaghi et al., CVPR 2014): the annotations of PASCAL in Detail as label images of 59 classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataloaders.archives.unpack import FIX, make_folder
from dataloaders.checks.annotations import outline_problem
from utils.errors import UserError, writing
from utils.palettes import palette_image, voc_palette
from utils.progress import progress
from utils.run.files import clear_parts, write_atomically

# Of the 459 categories (alphabetical, from 1) the 59 that are scored; their order is the order of the classes, from 1
CATEGORIES = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159,
    162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397,
    415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
CLASS_OF = {0: 0} | {category: number for number, category in enumerate(CATEGORIES, start=1)}
PHASES = ("train", "val")
PALETTE = voc_palette(len(CATEGORIES) + 1)


def convert(annotations: Path, _inner: str, folder: Path) -> None:
    """Write <id>.png, 0 background and 1..59 classes, to `folder`, and beside it ImageSets/SegmentationContext/.

    Finished images of an interrupted call are kept. The memory is about twice the size of the file, 1.3 GB.
    """
    images, objects = read(annotations)
    unfinished = folder / "unfinished"
    lists = folder.parent / "ImageSets" / "SegmentationContext"
    make_folder(lists)
    with writing(folder, FIX):
        clear_parts(lists)
        for image in progress(annotations.name, 0, len(images), iterable=images, unit="image"):
            path = folder / f"{stem(annotations, image)}.png"
            if not path.is_file():
                label = draw(annotations, image, objects.get(image["image_id"], []))
                palette_image(label, PALETTE).save(unfinished, "PNG")
                unfinished.replace(path)
        unfinished.unlink(missing_ok=True)  # of a killed process
        for phase in PHASES:
            ids = sorted(stem(annotations, image) for image in images if image["phase"] == phase)
            write_atomically(lists / f"{phase}.txt", "".join(f"{image_id}\n" for image_id in ids).encode())


def read(annotations: Path) -> tuple[list[dict], dict[int, list[dict]]]:
    """(images of both phases, their objects by image id in the order of the file)."""
    objects: dict[int, list[dict]] = {}
    try:
        content = json.loads(annotations.read_bytes())
        images = [image for image in content["images"] if image["phase"] in PHASES]
        for entry in content["annos_segmentation"]:
            kept = {"category_id": entry["category_id"], "segmentation": entry["segmentation"]}
            objects.setdefault(entry["image_id"], []).append(kept)
        complete = all({"image_id", "file_name", "height", "width"} <= image.keys() for image in images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{annotations} is damaged or not PASCAL in Detail's annotation file ({type(error).__name__}: {error}): "
            "delete it and run this command again to download it"
        ) from error
    if not complete or not images:
        raise UserError(f"{annotations} lists no images with image_id, file_name, height and width: delete it")
    return images, objects


def stem(annotations: Path, image: Mapping) -> str:
    name = str(image["file_name"])
    if name != Path(name).name or "\\" in name:
        raise UserError(f"{annotations} names an image {name!r} in another folder: delete it")
    return Path(name).stem


def draw(annotations: Path, image: Mapping, objects: Sequence[Mapping]) -> np.ndarray:
    """The classes uint8 [H, W] of an image; where objects overlap, the last one."""
    from pycocotools import mask as mask_tools

    height, width = image["height"], image["width"]
    label = np.zeros((height, width), np.uint8)
    for entry in objects:
        category, outline = entry["category_id"], entry["segmentation"]
        problem = outline_problem(outline, height, width)
        if category not in CLASS_OF or isinstance(outline, list) or problem:
            problem = problem or f"has the category {category}, which is none of the 59, or no run lengths"
            raise UserError(f"{annotations}: an object of {image['file_name']} {problem}: download the file again")
        label[mask_tools.decode(outline).astype(bool)] = CLASS_OF[category]
    return label
