"""Pascal VOC 2012, and the folder layout that other datasets share with it."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import Names, Report, files_by_id, match_files, raise_first, read_ids, require_folder
from utils.errors import UserError
from utils.palettes import VOC_CLASSES, palette_image, voc_palette

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class VOCLayout(SegmentationDataset):
    """`JPEGImages/<id>.*`, `SegmentationClass/<id>.png`, and the ids in `ImageSets/Segmentation/<split>.txt`.

    The split test may be without labels.
    """

    has_void_border = None

    def __init__(self, root: Path, split: str, *, name: str, classes: tuple[str, ...], report: Report = raise_first):
        self.name, self.classes, self.palette = name, classes, voc_palette(len(classes))
        self.labels = root / "SegmentationClass"
        split_file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        ids, folder = read_ids(split_file), require_folder(root / "JPEGImages", name, "JPEGImages/")
        images = files_by_id(folder, IMAGE_SUFFIXES, report)
        labels = {}
        if split != "test" or self.labels.is_dir():
            require_folder(self.labels, name, "SegmentationClass/ beside JPEGImages/")
            labels = files_by_id(self.labels, [".png"], report)
        self.has_labels = split != "test" or any(key in labels for key in ids)
        names = Names(str(split_file), f"{folder} (endings {' '.join(IMAGE_SUFFIXES)})", f"{self.labels}/{{}}.png")
        self.ids = match_files(ids, images, labels if self.has_labels else images, names=names, report=report)
        self.images = [images[key] for key in self.ids]
        self.label_files = [labels.get(key) for key in self.ids]

    def image_path(self, index: int) -> Path:
        return self.images[index]

    def label_path(self, index: int) -> Path:
        return self.label_files[index]


class VOC(VOCLayout):
    """Pascal VOC 2012 segmentation: 21 classes, a border of 255 around each object."""

    classes, palette = VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    has_void_border = True

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        super().__init__(find_voc(root), split, name="pascal", classes=VOC_CLASSES, report=report)

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For VOC's server: comp6, segmentation trained on any data."""
        return Path(f"results/VOC2012/Segmentation/comp6_test_cls/{key}.png"), palette_image(prediction, self.palette)


def find_voc(root: Path) -> Path:
    """The folder that holds JPEGImages/: `root`, or below a devkit."""
    candidates = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    for folder in candidates:
        if (folder / "classes.txt").is_file():
            raise UserError(f"{folder} has a classes.txt, so is not VOC's: give --dataset folder")
        if (folder / "JPEGImages").is_dir():
            return folder
    return require_folder(root / "JPEGImages", "pascal", "JPEGImages/ there, in VOC2012/ and in VOCdevkit/VOC2012/")
