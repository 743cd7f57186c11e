"""How the images of an unpacked dataset are counted. What is missing counts as 0."""

import json
from pathlib import Path

from utils.errors import UserError


def count_ids(root: Path, place: str) -> int:
    """The lines of a list of ids that are not blank."""
    try:
        with open(root / place, encoding="utf-8") as file:
            return sum(1 for line in file if line.strip())
    except FileNotFoundError:
        return 0
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{root / place} cannot be read ({error}): delete its folder and run this again") from error


def count_files(root: Path, place: str) -> int:
    """The files that match a pattern."""
    return sum(1 for _ in root.glob(place))


def count_json_images(root: Path, place: str) -> int:
    """The images that an annotation file of COCO lists. Costs up to 3 GB of memory for the largest."""
    path = root / place
    if not path.is_file():
        return 0
    try:
        return len(json.loads(path.read_bytes())["images"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is no annotation file of COCO ({error}): delete its folder and run this again"
        ) from error


def count_union(root: Path, place: str) -> int:
    """The training images of VOC and SBD together; `place`: both folders. Their files must be complete."""
    from dataloaders import build_dataset  # imports SciPy for SBD's labels

    voc, sbd = (str(root / folder) for folder in place.split())
    return len(build_dataset("pascal", "train", root=voc, use_sbd=True, sbd_root=sbd))
