"""What every dataset is: images with labels, read as they lie on disk, upright, and checked against each other."""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.checks.pairs import Opener, Pair, check_values, make_upright
from utils.errors import UserError
from utils.images import open_image, open_label
from utils.losses import IGNORE_INDEX
from utils.palettes import Palette, palette_image

__all__ = ["IGNORE_INDEX", "SegmentationDataset"]


class SegmentationDataset(ABC):
    """Images and labels by index. A subclass fills the attributes and says where an image and its label are."""

    name: str
    ids: list[str]
    classes: tuple[str, ...]
    palette: Palette
    has_label_files = True  # one for each image; else labels are drawn
    has_labels = True  # without them (a test split) every label reads as 255 throughout
    notes: Sequence[str] = ()  # what is worth a look, but no problem
    has_void_border: bool | None = False  # whether 255 is drawn around objects; None: see the labels

    @functools.cached_property
    def checked(self) -> set[int]:
        """Labels whose values were found to be classes."""
        return set()

    @classmethod
    def class_names(cls, root: Path) -> tuple[tuple[str, ...], Palette]:
        """(classes, palette), without reading the images."""
        return cls.classes, cls.palette

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def image_path(self, index: int) -> Path: ...

    @abstractmethod
    def label_path(self, index: int) -> Path: ...

    def open_label(self, index: int) -> Image.Image:
        """The label as stored, one channel of class numbers."""
        return open_label(self.label_path(index))

    def label_digest(self, index: int) -> bytes:
        """Changes whenever the label's content does."""
        return hashlib.sha256(self.label_path(index).read_bytes()).digest()

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """(RGB image, one-channel label), upright and of one size. Raises UserError naming the file at fault."""
        image, label, problems = self.load_and_check(index)
        if problems:
            raise problems[0]
        return image, label

    def load_and_check(self, index: int, opened: Opener = open_image) -> Pair:
        """The same, with all that is wrong about the two; `opened` gives (image, its turn) of a path."""
        problems, image, turn, label = [], None, None, None
        path, source = self.image_path(index), self.describe_label(index)
        try:
            image, turn = opened(path)
        except UserError as error:
            problems.append(error)
        try:
            label = self.open_label(index) if self.has_labels else blank_label(image)
            if label is not None and index not in self.checked:  # once a process: it costs a tenth of the decoding
                check_values(label, len(self.classes), source)
                self.checked.add(index)
        except UserError as error:
            problems.append(error)
        if image is not None and label is not None:
            try:
                image, label = make_upright(image, label, turn, path=path, source=source)
            except UserError as error:
                problems.append(error)
        return Pair(image, label, problems)

    def labels_hold_void(self) -> bool:
        """Whether any label of the split has a pixel of 255."""
        return any(self.open_label(index).histogram()[IGNORE_INDEX] for index in range(len(self)))

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """(file below the submission's folder, its content) as the benchmark wants a prediction, uint8 [H, W]."""
        return Path(f"{key}.png"), palette_image(prediction, self.palette)

    def describe_label(self, index: int) -> str:
        return str(self.label_path(index))


def blank_label(image: Image.Image | None) -> Image.Image | None:
    return image and Image.new("L", image.size, IGNORE_INDEX)
