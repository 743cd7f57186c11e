"""ADE20K, the data of the scene parsing challenge of 2016: 150 classes, everything else 255."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import Names, Report, files_by_id, raise_first, require_folder
from utils.errors import UserError
from utils.palettes import ADE20K_CLASSES, ADE20K_PALETTE

FOLDERS = {"train": "training", "val": "validation", "test": "testing"}  # of each split


class ADE20K(SegmentationDataset):
    """`images/<folder>/<id>.jpg` and `annotations/<folder>/<id>.png`, in `root` or in its ADEChallengeData2016/.

    The labels have 1..150 for the classes and 0 for everything else. The split "test" may have no labels.
    """

    name, classes, palette, first_value = "ade20k", ADE20K_CLASSES, ADE20K_PALETTE, 1

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        name = FOLDERS.get(split, split)
        if name not in FOLDERS.values():
            raise UserError(f"ade20k has no split {split!r}: choose one of {', '.join(FOLDERS)}")
        root = find_ade20k(root)
        wanted = "images/ and annotations/, there or in ADEChallengeData2016/"
        image_folder = require_folder(root / "images" / name, "ade20k", wanted)
        images = files_by_id(image_folder, [".jpg"], report)
        if not images:
            raise UserError(f"{image_folder} holds no *.jpg: unpack ADEChallengeData2016.zip there")
        label_folder, labels = root / "annotations" / name, {}
        if name != "testing" or label_folder.is_dir():
            require_folder(label_folder, "ade20k", wanted)
            labels = files_by_id(label_folder, [".png"], report)
        self.has_labels = name != "testing" or any(image_id in labels for image_id in images)
        names = Names(
            source=str(image_folder),
            images=str(image_folder),
            label=f"{label_folder}/{{}}.png",
            fix="unpack ADEChallengeData2016.zip",
        )
        self.ids = self.match(list(images), images, labels, names=names, report=report)

    def submission(self, image_id: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For the challenge's server: one channel of 1..150."""
        return Path(f"{image_id}.png"), Image.fromarray(prediction + np.uint8(self.first_value))


def find_ade20k(root: Path) -> Path:
    """The folder that holds images/: `root`, or the archive's in it."""
    archive = root / "ADEChallengeData2016"
    return archive if (archive / "images").is_dir() and not (root / "images").is_dir() else root
