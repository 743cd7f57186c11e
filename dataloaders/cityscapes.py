"""Cityscapes with fine labels: 19 classes that train and score, everything else 255."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.layout import Names, Report, match_files, raise_first, require_folder
from utils.errors import UserError
from utils.images import open_label
from utils.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE

# labelIds value of each of the 19 classes, in their order (cityscapesScripts, helpers/labels.py)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_IDS = [LABEL_IDS.index(value) if value in LABEL_IDS else IGNORE_INDEX for value in range(256)]
IMAGE_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(SegmentationDataset):
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    The split test may be without labels.
    """

    name, classes, palette = "cityscapes", CITYSCAPES_CLASSES, CITYSCAPES_PALETTE

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        images = require_folder(root / "leftImg8bit" / split, "cityscapes", "leftImg8bit/ and gtFine/")
        found = by_city_and_id(images, IMAGE_END)
        if not found:
            raise UserError(f"{images} holds no <city>/*{IMAGE_END}: unpack leftImg8bit_trainvaltest.zip there")
        folder = root / "gtFine" / split
        if split != "test":
            require_folder(folder, "cityscapes", "leftImg8bit/ and gtFine/")
        labels = by_city_and_id(folder, LABEL_END)
        self.has_labels = split != "test" or any(key in labels for key in found)
        names = Names(str(images), str(images), f"{folder}/{{}}{LABEL_END}", "unpack gtFine_trainvaltest.zip")
        keys = match_files(list(found), found, labels if self.has_labels else found, names=names, report=report)
        self.ids = [key.split("/")[1] for key in keys]
        self.images, self.labels = [found[key] for key in keys], [labels.get(key) for key in keys]

    def image_path(self, index: int) -> Path:
        return self.images[index]

    def label_path(self, index: int) -> Path:
        return self.labels[index]

    def open_label(self, index: int) -> Image.Image:
        return open_label(self.labels[index]).point(TRAIN_IDS)

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For the Cityscapes server: one channel of labelIds."""
        return Path(f"{key}_labelIds.png"), Image.fromarray(np.array(LABEL_IDS, np.uint8)[prediction])


def by_city_and_id(folder: Path, ending: str) -> dict[str, Path]:
    """<town>/<id> -> file, in order."""
    return {
        f"{path.parent.name}/{path.name.removesuffix(ending)}": path for path in sorted(folder.glob(f"*/*{ending}"))
    }
