"""SegmentationDataset: images with labels by index, decoded, upright and checked. The base of every dataset."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.checks.layout import Names, Report, match_files
from dataloaders.checks.pairs import Opener, Pair, check_values, make_upright
from dataloaders.strings import Packed, Paths, Strings
from utils.constants import IGNORE_INDEX
from utils.errors import UserError
from utils.images import Pixels, open_image, open_label, open_label_pixels, open_pixels, size_of
from utils.palettes import Palette, palette_image

__all__ = ["IGNORE_INDEX", "Pixels", "SegmentationDataset"]


class SegmentationDataset:
    """A split of a dataset, built by `Class(root, split, report=report)`.

    A subclass sets

    - `name`, its key in the table of dataloaders/__init__.py,
    - `classes`, 2 to 254 names in the order of the class numbers, and `palette`, the RGB color of each (if they are not
      attributes of the class, override `class_names` too),
    - `ids`, for each image the id that names the files of its results,
    - `image_files` and `label_files`, in the order of `ids` (or override `image_path` and `label_path`). Images are
      files of any format of Pillow with at most 8 bits a channel, labels gray or palette PNG files of class numbers,
    - `first_value` if their class numbers do not begin at 0.

    An object keeps the lists that it sets as two arrays each (dataloaders/strings.py). Its other attributes should not
    be lists of an object for each image either: each data worker would copy them.

    `__init__` raises UserError for a `split` ("train", "val" or another) that `root`, a Path, does not have. It passes
    messages about missing files as a list to `report`, which raises UserError with the first one or returns; then it
    leaves these images out. The functions of dataloaders/checks/layout.py do both.

    For other label files override `open_label`. For labels that are not one file each, set `has_label_files = False`
    and override `open_label`, `label_digest` and `describe_label`. For images that are not one file each override
    `load_and_check` and `sample_stamp`.
    """

    name: str
    ids: Sequence[str] = Packed(Strings)
    image_files: Sequence[Path] = Packed(Paths)
    label_files: Sequence[Path | None] = Packed(Paths)  # None for an image without a label
    classes: tuple[str, ...]
    palette: Palette
    first_value = 0  # of the first class in the label files; the smaller values are ignored
    has_label_files = True  # one for each image: `check_labels` reads them before training
    has_labels = True  # False for a test split: every pixel of its labels is 255
    has_void_border: bool | None = False  # whether 255 surrounds the objects; None: unknown, see `labels_hold_void`
    notes: Sequence[str] = ()  # lines for the user that are no problems

    @classmethod
    def class_names(cls, root: Path) -> tuple[tuple[str, ...], Palette]:
        """(classes, palette), without reading the images."""
        return cls.classes, cls.palette

    def match(
        self,
        ids: Sequence[str],
        images: Mapping[str, Path],
        labels: Mapping[str, Path],
        *,
        names: Names,
        report: Report,
    ) -> list[str]:
        """Set `image_files` and `label_files` of the `ids` that have both, and return these ids; see `match_files`.

        Where the split has no labels, only the images are matched.
        """
        found = match_files(ids, images, labels if self.has_labels else images, names=names, report=report)
        self.image_files = [images[image_id] for image_id in found]
        self.label_files = [labels.get(image_id) for image_id in found]
        return found

    def __len__(self) -> int:
        return len(self.ids)

    def image_path(self, index: int) -> Path:
        return self.image_files[index]

    def label_path(self, index: int) -> Path | None:
        return self.label_files[index]

    def open_label(self, index: int) -> Image.Image:
        """The label as stored: mode L or P, values are class numbers and 255 for pixels to ignore.

        Raises BrokenImage for a file that cannot be decoded, UserError for another mode.
        """
        label = open_label(self.label_path(index))
        return label.point(class_numbers(self.first_value, len(self.classes))) if self.first_value else label

    def open_label_pixels(self, index: int) -> Pixels:
        """As `open_label`, for samples: perhaps an array, in less time."""
        if type(self).open_label is not SegmentationDataset.open_label or self.first_value:
            return self.open_label(index)
        return open_label_pixels(self.label_path(index))

    def label_digest(self, index: int) -> bytes:
        """Bytes that change with the content of the label: the key of cached class weights."""
        return hashlib.sha256(bytes([self.first_value]) + self.label_path(index).read_bytes()).digest()

    def describe_label(self, index: int) -> str:
        """How messages name the label."""
        return str(self.label_path(index))

    def source(self, index: int) -> tuple["SegmentationDataset", int]:
        """The dataset that decodes a sample, and its index there: another one if this one is made of several."""
        return self, index

    def sample_stamp(self, index: int) -> str:
        """Changes with the files of a sample, without reading them. Raises OSError for a missing one."""
        label = self.label_path(index) if self.has_labels else None
        if label is not None:
            label = size_and_time(label) if self.has_label_files else self.label_digest(index).hex()
        return f"{size_and_time(self.image_path(index))} {label}"

    def submission(self, image_id: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """A prediction, uint8 [H, W], as the benchmark's server takes it: (path below the output folder, image)."""
        return Path(f"{image_id}.png"), palette_image(prediction, self.palette)

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """(image in mode RGB, label in mode L or P with classes and 255), upright and of one size.

        Raises UserError that names the file: BrokenImage if it cannot be decoded.
        """
        return without_problems(self.load_and_check(index))

    def read_pixels(self, index: int) -> tuple[Pixels, Pixels]:
        """As `read`, for the samples of loaders: both may also be uint8 arrays, perhaps memory-mapped."""
        return without_problems(self.load_and_check(index, open_pixels))

    def load_and_check(self, index: int, opener: Opener = open_image) -> Pair:
        """As `read`, but returns all problems instead of raising the first; `opener` opens the image.

        With `open_pixels` image and label may be arrays.
        """
        problems: list[UserError] = []
        image = transpose = label = None
        path, source = self.image_path(index), self.describe_label(index)
        with collect_error(problems):
            image, transpose = opener(path)
        with collect_error(problems):
            opener_of_label = self.open_label_pixels if opener is open_pixels else self.open_label
            label = opener_of_label(index) if self.has_labels else blank_label(image)
            if label is not None and not self.checked[index]:
                check_values(label, len(self.classes), source, first_value=self.first_value)
                self.checked[index] = True
        if image is not None and label is not None:
            with collect_error(problems):
                image, label = make_upright(image, label, transpose, path=path, source=source)
        return Pair(image, label, problems)

    @functools.cached_property
    def checked(self) -> np.ndarray:
        """Which labels have valid values. Each process checks a label once: it costs a tenth of the decoding."""
        return np.zeros(len(self), bool)

    def labels_hold_void(self) -> bool:
        """Whether any label has a pixel of 255. Reads the labels until the first one."""
        return any(self.open_label(index).histogram()[IGNORE_INDEX] for index in range(len(self)))


def size_and_time(path: Path) -> tuple[int, int]:
    """Raises OSError for a missing file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def without_problems(pair: Pair) -> tuple[Pixels, Pixels]:
    """(image, label), or raises the first problem."""
    if pair.problems:
        raise pair.problems[0]
    return pair.image, pair.label


@functools.cache
def class_numbers(first_value: int, num_classes: int) -> list[int]:
    """The class, or 255, for each of the 256 values of a label file in which the first class is `first_value`.

    Values above the classes stay as they are: none of them becomes a class, and messages name them as stored.
    """
    return [IGNORE_INDEX] * first_value + [*range(num_classes), *range(first_value + num_classes, 256)]


@contextlib.contextmanager
def collect_error(problems: list[UserError]) -> Iterator[None]:
    """Append a UserError of the block to `problems`."""
    try:
        yield
    except UserError as error:
        problems.append(error)


def blank_label(image: Pixels | None) -> Image.Image | None:
    return None if image is None else Image.new("L", size_of(image), IGNORE_INDEX)
