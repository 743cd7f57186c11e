"""Pascal VOC 2012, and its folder layout for other data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import Names, Report, files_by_id, raise_first, read_ids, require_folder
from utils.errors import UserError
from utils.palettes import VOC_CLASSES, palette_image, voc_palette

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")


class VOCLayout(SegmentationDataset):
    """`JPEGImages/<id>.*`, `SegmentationClass/<id>.png`, and the ids in `ImageSets/Segmentation/<split>.txt`.

    The split "test" may have no labels. A subclass may allow other folders, of which the first that exists counts.
    """

    has_void_border = None
    image_folders: Sequence[str] = ("JPEGImages",)
    label_folders: Sequence[str] = ("SegmentationClass",)
    list_folders: Sequence[str] = ("ImageSets/Segmentation",)

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        id_file = first_existing(root, [f"{folder}/{split}.txt" for folder in self.list_folders])
        ids = read_ids(id_file)
        image_folder = first_existing(root, self.image_folders)
        require_folder(image_folder, self.name, " or ".join(f"{folder}/" for folder in self.image_folders))
        images = files_by_id(image_folder, IMAGE_SUFFIXES, report)
        self.label_folder, labels = first_existing(root, self.label_folders), {}
        if split != "test" or self.label_folder.is_dir():
            wanted = " or ".join(f"{folder}/" for folder in self.label_folders)
            require_folder(self.label_folder, self.name, f"{wanted} beside {image_folder.name}/")
            labels = files_by_id(self.label_folder, [".png"], report)
        self.has_labels = split != "test" or any(image_id in labels for image_id in ids)
        suffixes = " ".join(IMAGE_SUFFIXES)
        names = Names(str(id_file), f"{image_folder} (endings {suffixes})", f"{self.label_folder}/{{}}.png")
        self.ids = self.match(ids, images, labels, names=names, report=report)


class VOC(VOCLayout):
    """Pascal VOC 2012 segmentation: 21 classes, a border of 255 around each object."""

    name, classes, palette = "pascal", VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    has_void_border = True

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        super().__init__(find_voc(root, "2012", self.name), split, report=report)

    def submission(self, image_id: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For VOC's server: comp6, segmentation trained on any data."""
        path = Path("results/VOC2012/Segmentation/comp6_test_cls") / f"{image_id}.png"
        return path, palette_image(prediction, self.palette)


def first_existing(root: Path, names: Sequence[str]) -> Path:
    """The first of the files or folders `names` in `root` that exists; the first name if there is none."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])


def find_voc(root: Path, year: str, dataset: str) -> Path:
    """The folder that holds JPEGImages/: `root`, or VOC<year>/ of a devkit in it.

    Raises UserError, with how to set the root of `dataset`, if there is none.
    """
    for folder in (root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"):
        if (folder / "classes.txt").is_file():
            raise UserError(f"{folder} has a classes.txt, so is not VOC's: give --dataset folder")
        if (folder / "JPEGImages").is_dir():
            return folder
    wanted = f"JPEGImages/ there, in VOC{year}/ and in VOCdevkit/VOC{year}/"
    return require_folder(root / "JPEGImages", dataset, wanted)
