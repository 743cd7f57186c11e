"""COCO 2017 with VOC's 21 classes. The labels are drawn from the instance annotations, once: see coco_index.py."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.annotations import MIN_NUMBERS
from dataloaders.checks.layout import Report, how_to_set_root, raise_first, require_folder
from dataloaders.coco_index import open_index
from utils.distributed import print_main
from utils.errors import UserError
from utils.palettes import VOC_CLASSES, voc_palette

MIN_PIXELS = 1000


class COCO(SegmentationDataset):
    """`annotations/instances_<split>2017.json` and the images in `<split>2017/`, `images/<split>2017/` or `images/`.

    The split "train" has the images with more than 1000 pixels of VOC's 20 classes, every other split all images.
    """

    name, classes, palette = "coco", VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    has_label_files = False

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        self.annotation_file = find_annotation_file(root, split)
        image_folder = find_image_folder(root, split)
        self.index = open_index(self.annotation_file, report)
        if self.index.num_short:
            left_out = f"{self.index.num_short} polygons of fewer than {MIN_NUMBERS} numbers are left out"
            self.notes = [f"{self.annotation_file}: {left_out}"]
            print_main(self.notes[0])
        wanted = self.training_rows() if split == "train" else np.arange(len(self.index.names))
        files = set(os.listdir(image_folder))  # one listing is faster than 118,287 times exists()
        names = {row: self.index.names[row] for row in wanted.tolist()}
        kept = {row: name for row, name in names.items() if os.path.basename(name) in files}
        missing = [image_folder / name for row, name in names.items() if row not in kept]
        report([f"{path} is missing, but {self.annotation_file} lists it: unpack the images again" for path in missing])
        self.rows = np.array([*kept], np.int32)  # of each image in the annotation file's index
        self.image_files = [os.path.join(image_folder, name) for name in kept.values()]
        self.ids = [os.path.splitext(os.path.basename(name))[0] for name in kept.values()]

    def training_rows(self) -> np.ndarray:
        """Raises UserError if there is none."""
        rows = np.flatnonzero(self.index.pixels > MIN_PIXELS)
        if not rows.size:
            raise UserError(
                f"{self.annotation_file} has no image with more than {MIN_PIXELS} pixels of VOC's 20 classes: "
                "use COCO's own annotations"
            )
        return rows

    def label_path(self, index: int) -> Path:
        return self.annotation_file

    def open_label(self, index: int) -> Image.Image:
        return Image.fromarray(self.index.label(self.rows[index]))

    def label_digest(self, index: int) -> bytes:
        return f"{self.index.digest}/{self.image_id(index)}".encode()

    def describe_label(self, index: int) -> str:
        return f"{self.annotation_file} (image {self.image_id(index)})"

    def image_id(self, index: int) -> int:
        """COCO's; `ids` are the names of the files."""
        return int(self.index.image_ids[self.rows[index]])


def find_annotation_file(root: Path, split: str) -> Path:
    """Raises UserError if there is none."""
    path = root / "annotations" / f"instances_{split}2017.json"
    if not path.is_file():
        content = f"--data-root DIR with annotations/ and {split}2017/"
        raise UserError(f"coco: no file {path}: {how_to_set_root(path, 'coco', content)}")
    return path


def find_image_folder(root: Path, split: str) -> Path:
    """Raises UserError if there is none."""
    folders = [root / f"{split}2017", root / "images" / f"{split}2017", root / "images"]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return require_folder(folder, "coco", f"{split}2017/, images/{split}2017/ or images/")
