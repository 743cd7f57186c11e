"""Cityscapes with fine labels: the 19 evaluated classes, everything else 255."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.layout import Names, Report, raise_first, require_folder
from utils.errors import UserError
from utils.images import open_label
from utils.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE

# labelIds value of each of the 19 classes, in their order (cityscapesScripts, helpers/labels.py)
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_IDS = [LABEL_IDS.index(value) if value in LABEL_IDS else IGNORE_INDEX for value in range(256)]
IMAGE_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"


class Cityscapes(SegmentationDataset):
    """`leftImg8bit/<split>/<city>/<id>_leftImg8bit.png` and `gtFine/<split>/<city>/<id>_gtFine_labelIds.png`.

    The split "test" may have no labels.
    """

    name, classes, palette = "cityscapes", CITYSCAPES_CLASSES, CITYSCAPES_PALETTE

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        image_folder = require_folder(root / "leftImg8bit" / split, "cityscapes", "leftImg8bit/ and gtFine/")
        images = files_by_city_and_id(image_folder, IMAGE_END)
        if not images:
            raise UserError(f"{image_folder} holds no <city>/*{IMAGE_END}: unpack leftImg8bit_trainvaltest.zip there")
        label_folder = root / "gtFine" / split
        if split != "test":
            require_folder(label_folder, "cityscapes", "leftImg8bit/ and gtFine/")
        labels = files_by_city_and_id(label_folder, LABEL_END)
        self.has_labels = split != "test" or any(name in labels for name in images)
        names = Names(
            source=str(image_folder),
            images=str(image_folder),
            label=f"{label_folder}/{{}}{LABEL_END}",
            fix="unpack gtFine_trainvaltest.zip",
        )
        kept = self.match(list(images), images, labels, names=names, report=report)
        self.ids = [name.split("/")[1] for name in kept]

    def open_label(self, index: int) -> Image.Image:
        return open_label(self.label_path(index)).point(TRAIN_IDS)

    def submission(self, image_id: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For the Cityscapes server: one channel of labelIds."""
        return Path(f"{image_id}_labelIds.png"), Image.fromarray(np.array(LABEL_IDS, np.uint8)[prediction])


def files_by_city_and_id(folder: Path, end: str) -> dict[str, Path]:
    """<city>/<id> -> file, sorted, for the files whose names end in `end`."""
    return {f"{path.parent.name}/{path.name.removesuffix(end)}": path for path in sorted(folder.glob(f"*/*{end}"))}
