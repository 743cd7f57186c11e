"""Cityscapes with fine labels: 19 classes that train and score, everything else 255."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX, PictureSet, open_label, require_folder
from dataloaders.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
from errors import UserError

# labelIds value of each of the 19 classes, in their order (cityscapesScripts, helpers/labels.py)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_IDS = [LABEL_IDS.index(value) if value in LABEL_IDS else IGNORE_INDEX for value in range(256)]
PICTURE_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(PictureSet):
    """`leftImg8bit/<split>/<city>/*_leftImg8bit.png` with `gtFine/<split>/<city>/*_gtFine_labelIds.png`.

    The split test may be without labels.
    """

    def __init__(self, root: Path, split: str):
        self.name, self.classes, self.palette = "cityscapes", CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
        pictures = require_folder(root / "leftImg8bit" / split, "cityscapes", "leftImg8bit/ and gtFine/")
        self.pictures = sorted(pictures.glob(f"*/*{PICTURE_END}"))
        if not self.pictures:
            raise UserError(f"{pictures} holds no <city>/*{PICTURE_END}: unpack leftImg8bit_trainvaltest.zip there")
        self.ids = [path.name.removesuffix(PICTURE_END) for path in self.pictures]
        labels = root / "gtFine" / split
        self.labels = [
            labels / path.parent.name / f"{key}{LABEL_END}" for path, key in zip(self.pictures, self.ids, strict=True)
        ]
        missing = [path for path in self.labels if not path.is_file()]
        self.has_labels = split != "test" or len(missing) < len(self.labels)
        if self.has_labels and missing:
            raise UserError(f"{missing[0]} is missing ({len(missing)} labels are): unpack gtFine_trainvaltest.zip")

    def picture_path(self, index: int) -> Path:
        return self.pictures[index]

    def label_path(self, index: int) -> Path:
        return self.labels[index]

    def open_label(self, index: int) -> Image.Image:
        return open_label(self.labels[index]).point(TRAIN_IDS)

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For the Cityscapes server: one channel of labelIds."""
        return Path(f"{key}_labelIds.png"), Image.fromarray(np.array(LABEL_IDS, np.uint8)[prediction])
