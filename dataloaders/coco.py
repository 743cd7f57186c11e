"""COCO 2017 with VOC's 21 classes. pycocotools draws the labels from the instance annotations."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_tools

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.annotations import MIN_NUMBERS, Outline, read_annotations
from dataloaders.checks.layout import Report, how_to_set_root, raise_first, require_folder
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
    """`annotations/instances_<split>2017.json` and the images in `<split>2017/`, `images/<split>2017/` or `images/`.

    The split "train" has the images with more than 1000 pixels of VOC's 20 classes, every other split all images.
    """

    name, classes, palette = "coco", VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    has_label_files = False

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        self.annotation_file = find_annotation_file(root, split)
        self.image_folder = find_image_folder(root, split)
        self.digest = hashlib.sha256(self.annotation_file.read_bytes()).hexdigest()
        self.images, self.objects, num_short = read_annotations(self.annotation_file, CLASS_OF, report)
        if num_short:
            note = f"{self.annotation_file}: {num_short} polygons of fewer than {MIN_NUMBERS} numbers are left out"
            self.notes = [note]
            print_main(note)
        # COCO's integers; `ids` are the names of the files
        self.image_ids = self.training_ids() if split == "train" else sorted(self.images)
        self.leave_out_missing(report)
        self.ids = [Path(self.file_name(image_id)).stem for image_id in self.image_ids]

    def training_ids(self) -> list[int]:
        """As `ids_with_enough_pixels`, computed once. Raises UserError if there is none."""
        name = f"coco-{self.digest[:32]}-over-{MIN_PIXELS}-pixels"
        image_ids = cached(name, self.ids_with_enough_pixels)
        if not image_ids:
            raise UserError(
                f"{self.annotation_file} has no image with more than {MIN_PIXELS} pixels of VOC's 20 classes: "
                "use COCO's own annotations"
            )
        return image_ids

    def ids_with_enough_pixels(self) -> list[int]:
        """COCO's ids of the images with more than MIN_PIXELS pixels of VOC's 20 classes. Draws all labels."""
        image_ids, title = sorted(self.images), "choosing COCO images (once)"
        with progress(title, 0, len(image_ids), iterable=image_ids, unit="image") as bar:
            return [image_id for image_id in bar if np.isin(self.draw(image_id), range(1, 21)).sum() > MIN_PIXELS]

    def leave_out_missing(self, report: Report) -> None:
        """Report and leave out images without a file."""
        files = {path.name for path in self.image_folder.iterdir()}  # one listing is faster than 118,287 times exists()
        kept = [image_id for image_id in self.image_ids if Path(self.file_name(image_id)).name in files]
        missing = [self.image_folder / self.file_name(image_id) for image_id in sorted({*self.image_ids} - {*kept})]
        report([f"{path} is missing, but {self.annotation_file} lists it: unpack the images again" for path in missing])
        self.image_ids = kept

    def file_name(self, image_id: int) -> str:
        return self.images[image_id]["file_name"]

    def image_path(self, index: int) -> Path:
        return self.image_folder / self.file_name(self.image_ids[index])

    def label_path(self, index: int) -> Path:
        return self.annotation_file

    def open_label(self, index: int) -> Image.Image:
        return Image.fromarray(self.draw(self.image_ids[index]))

    def label_digest(self, index: int) -> bytes:
        return f"{self.digest}/{self.image_ids[index]}".encode()

    def describe_label(self, index: int) -> str:
        return f"{self.annotation_file} (image {self.image_ids[index]})"

    def draw(self, image_id: int) -> np.ndarray:
        """uint8 [H, W]: the class, 255 where two classes overlap and in crowds, 0 elsewhere."""
        height, width = self.images[image_id]["height"], self.images[image_id]["width"]
        label = np.zeros((height, width), np.uint8)
        crowd = np.zeros((height, width), bool)
        for number, is_crowd, outline in self.objects.get(image_id, ()):
            mask = draw_outline(outline, height, width)
            if is_crowd:
                crowd |= mask
                continue
            overlap = mask & (label != 0) & (label != number)
            label[mask] = number
            label[overlap] = IGNORE_INDEX
        label[crowd] = IGNORE_INDEX
        return label


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


def draw_outline(outline: Outline, height: int, width: int) -> np.ndarray:
    """bool [height, width] of polygons, or of run lengths, compressed or not."""
    return mask_tools.decode(encode_outline(outline, height, width)).astype(bool)


def encode_outline(outline: Outline, height: int, width: int) -> dict:
    """Compressed run lengths."""
    if isinstance(outline, list):
        return mask_tools.merge(mask_tools.frPyObjects(outline, height, width))
    return mask_tools.frPyObjects(outline, height, width) if isinstance(outline["counts"], list) else outline
