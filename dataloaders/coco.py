"""COCO 2017 with VOC's 21 classes, drawn from the instance annotations by pycocotools."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_tools

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.annotations import MIN_NUMBERS, read_annotations
from dataloaders.checks.layout import Report, hint, raise_first, require_folder
from utils.cache import cached
from utils.distributed import print_main
from utils.errors import UserError
from utils.palettes import VOC_CLASSES, voc_palette
from utils.progress import progress

# COCO category of VOC's classes 1..20, in their order
CATEGORIES = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
CLASS_OF = {category: number for number, category in enumerate(CATEGORIES, start=1)}
MIN_PIXELS = 1000


class COCO(SegmentationDataset):
    """`train2017/ val2017/ annotations/`, or `images/` and `annotations/`.

    Training keeps images with more than 1000 pixels of the 20 classes; every other split keeps all.
    """

    name, classes, palette = "coco", VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    has_label_files = False

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        self.annotation_file = root / "annotations" / f"instances_{split}2017.json"
        if not self.annotation_file.is_file():
            raise UserError(
                f"coco: no file {self.annotation_file}: give --data-root DIR with annotations/ and {split}2017/, "
                f"set DEEPLAB_COCO_ROOT, or edit mypath.py{hint(self.annotation_file, 'coco')}"
            )
        folders = [root / f"{split}2017", root / "images" / f"{split}2017", root / "images"]
        self.folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        require_folder(self.folder, "coco", f"{split}2017/, images/{split}2017/ or images/")
        self.digest = hashlib.sha256(self.annotation_file.read_bytes()).hexdigest()
        self.images, self.objects, num_short = read_annotations(self.annotation_file, CLASS_OF, report)
        if num_short:
            self.notes = [
                f"{self.annotation_file}: {num_short} polygons of fewer than {MIN_NUMBERS} numbers are left out"
            ]
            print_main(self.notes[0])
        self.keys = sorted(self.images)
        if split == "train":
            self.keys = cached(f"coco-{self.digest[:32]}-over-{MIN_PIXELS}-pixels", self.keys_with_enough)
        if not self.keys:
            raise UserError(f"{self.annotation_file} leaves no image to use: it needs objects of VOC's 20 classes")
        there = {path.name for path in self.folder.iterdir()}
        absent = {key for key in self.keys if Path(self.images[key]["file_name"]).name not in there}
        report(
            [
                f"{self.folder / self.images[key]['file_name']} is missing, but {self.annotation_file} lists it: "
                "unpack the images again"
                for key in self.keys
                if key in absent
            ]
        )
        self.keys = [key for key in self.keys if key not in absent]
        self.ids = [Path(self.images[key]["file_name"]).stem for key in self.keys]

    def image_path(self, index: int) -> Path:
        return self.folder / self.images[self.keys[index]]["file_name"]

    def label_path(self, index: int) -> Path:
        return self.annotation_file

    def open_label(self, index: int) -> Image.Image:
        return Image.fromarray(self.draw(self.keys[index]))

    def label_digest(self, index: int) -> bytes:
        return f"{self.digest}/{self.keys[index]}".encode()

    def describe_label(self, index: int) -> str:
        return f"{self.annotation_file} (image {self.keys[index]})"

    def keys_with_enough(self) -> list[int]:
        title = "choosing COCO images (once)"
        with progress(title, 0, len(self.keys), iterable=self.keys, unit="image") as bar:
            return [key for key in bar if np.isin(self.draw(key), range(1, 21)).sum() > MIN_PIXELS]

    def draw(self, key: int) -> np.ndarray:
        """uint8 [H, W]: the class, 255 where two classes overlap and in crowds, 0 elsewhere."""
        height, width = self.images[key]["height"], self.images[key]["width"]
        label = np.zeros((height, width), np.uint8)
        crowd = np.zeros((height, width), bool)
        for number, is_crowd, outline in self.objects.get(key, ()):
            inside = decode_outline(outline, height, width)
            if is_crowd:
                crowd |= inside
                continue
            clash = inside & (label != 0) & (label != number)
            label[inside] = number
            label[clash] = IGNORE_INDEX
        label[crowd] = IGNORE_INDEX
        return label


def decode_outline(outline: list | dict, height: int, width: int) -> np.ndarray:
    """bool [height, width] of polygons or run lengths, compressed or not."""
    if isinstance(outline, list):
        outline = mask_tools.merge(mask_tools.frPyObjects(outline, height, width))
    elif isinstance(outline["counts"], list):
        outline = mask_tools.frPyObjects(outline, height, width)
    return mask_tools.decode(outline).astype(bool)
