"""The root folders of the datasets: the one file a user edits."""

import json
import os

from utils.errors import UserError

ROOTS = {
    "pascal": "/path/to/datasets/VOCdevkit/VOC2012",  # holds JPEGImages/
    "sbd": "/path/to/datasets/benchmark_RELEASE/dataset",  # holds img/ and cls/
    "cityscapes": "/path/to/datasets/cityscapes",  # holds leftImg8bit/ and gtFine/
    "coco": "/path/to/datasets/coco",  # holds train2017/, val2017/ and annotations/
    "ade20k": "/path/to/datasets/ADEChallengeData2016",  # holds images/ and annotations/
    "context": "/path/to/datasets/VOCdevkit/VOC2010",  # holds JPEGImages/ and SegmentationClassContext/
    "folder": "/path/to/datasets/mine",  # holds JPEGImages/ and classes.txt
}


PLACEHOLDER = "/path/to/"


class Path:
    @staticmethod
    def db_root_dir(dataset: str) -> str:
        """Root folder of a dataset: DEEPLAB_<DATASET>_ROOT if it is set, else its line in ROOTS if a user edited it,
        else the folder that `python -m dataloaders.prepare` remembers."""
        line = ROOTS.get(dataset, f"{PLACEHOLDER}datasets/{dataset}")
        if from_environment := os.environ.get(f"DEEPLAB_{dataset.upper()}_ROOT"):
            return from_environment
        return remembered_roots().get(dataset, line) if line.startswith(PLACEHOLDER) else line


def roots_file() -> str:
    """The JSON file, dataset -> root folder, that `python -m dataloaders.prepare` writes."""
    folder = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(folder, "deeplab", "roots.json")


def remembered_roots() -> dict[str, str]:
    """The content of `roots_file()`, empty if there is none. Raises UserError if it is damaged."""
    try:
        with open(roots_file(), encoding="utf-8") as file:
            roots = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{roots_file()} cannot be read ({error}): delete it, or give --data-root DIR") from error
    if not isinstance(roots, dict) or not all(isinstance(root, str) for root in roots.values()):
        raise UserError(f"{roots_file()} is not a table of dataset and folder: delete it, or give --data-root DIR")
    return roots
