"""Pascal VOC 2012, and the folder layout that other data sets share with it."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import PictureSet, palette_image, read_lines, require_folder
from dataloaders.palettes import VOC_CLASSES, voc_palette
from errors import UserError

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class VOCLayout(PictureSet):
    """`JPEGImages/<id>.*`, `SegmentationClass/<id>.png`, and the ids in `ImageSets/Segmentation/<split>.txt`.

    The split test may be without labels.
    """

    has_void_border = None

    def __init__(self, root: Path, split: str, *, name: str, classes: tuple[str, ...]):
        self.name, self.classes, self.palette = name, classes, voc_palette(len(classes))
        self.labels = root / "SegmentationClass"
        split_file = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        self.ids = read_lines(split_file)
        if not self.ids:
            raise UserError(f"{split_file} lists no picture: write one id a line")
        pictures = pictures_by_id(require_folder(root / "JPEGImages", name, "JPEGImages/"))
        missing = [key for key in self.ids if key not in pictures]
        if missing:
            raise UserError(
                f"{root / 'JPEGImages'} has no picture for id {missing[0]} of {split_file} ({len(missing)} missing; "
                f"endings {' '.join(PICTURE_ENDINGS)}): add it, or take the line out"
            )
        self.pictures = [pictures[key] for key in self.ids]
        absent = [key for key in self.ids if not (self.labels / f"{key}.png").is_file()]
        self.has_labels = split != "test" or len(absent) < len(self.ids)
        if self.has_labels:
            require_folder(self.labels, name, "SegmentationClass/ beside JPEGImages/")
        if self.has_labels and absent:
            raise UserError(
                f"{self.labels / (absent[0] + '.png')} is missing ({len(absent)} labels of {split_file} are): "
                "add it, or take the line out"
            )

    def picture_path(self, index: int) -> Path:
        return self.pictures[index]

    def label_path(self, index: int) -> Path:
        return self.labels / f"{self.ids[index]}.png"


class VOC(VOCLayout):
    """Pascal VOC 2012 segmentation: 21 classes, a border of 255 around each object."""

    has_void_border = True

    def __init__(self, root: Path, split: str):
        super().__init__(find_voc(root), split, name="pascal", classes=VOC_CLASSES)

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """For VOC's server: comp6, segmentation trained on any data."""
        return Path(f"results/VOC2012/Segmentation/comp6_test_cls/{key}.png"), palette_image(prediction, self.palette)


def find_voc(root: Path) -> Path:
    """The folder that holds JPEGImages/: `root`, or below a devkit."""
    candidates = [root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"]
    for folder in candidates:
        if (folder / "JPEGImages").is_dir():
            return folder
    return require_folder(root / "JPEGImages", "pascal", "JPEGImages/ there, in VOC2012/ and in VOCdevkit/VOC2012/")


def pictures_by_id(folder: Path) -> dict[str, Path]:
    """id -> picture. One listing of the folder, since asking for every id and ending is slow on network disks."""
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURE_ENDINGS}
