"""An image and its label: the label's values against the classes, its orientation and size against the image."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dataloaders.checks.layout import first_five
from utils.constants import IGNORE_INDEX
from utils.errors import UserError
from utils.images import Pixels, as_image, size_of

Opener = Callable[[Path], tuple[Pixels, Image.Transpose | None]]  # as utils.images.open_image


class Pair(NamedTuple):
    """RGB image and one-channel label, upright and of one size if there are no problems; None if it cannot be read."""

    image: Pixels | None
    label: Pixels | None
    problems: list[UserError]


def check_values(label: Pixels, num_classes: int, source: str, *, first_value: int = 0) -> None:
    """Raise UserError that names `source` for a value that is neither a class nor 255.

    `first_value`: how its files store class 0; see `SegmentationDataset`.
    """
    values = np.asarray(label)
    if (values + np.uint8(1)).max() > num_classes:  # 255 becomes 0, a class its number + 1: less time than counting
        invalid = [int(value) for value in np.unique(values) if num_classes <= value < IGNORE_INDEX]
        ignored = ", ".join(map(str, (*range(first_value), IGNORE_INDEX)))
        raise UserError(
            f"{source} holds {first_five(invalid)}, outside the {num_classes} classes "
            f"{first_value}..{first_value + num_classes - 1} ({ignored}: ignored): correct the label or add the classes"
        )


def make_upright(
    image: Pixels, label: Pixels, transpose: Image.Transpose | None, *, path: Path, source: str
) -> tuple[Pixels, Pixels]:
    """Both upright: `transpose`, of an image of Pillow, also applies to a label that has the size of the stored image.

    Raises UserError that names the label's `source` and the image's `path` if the sizes differ.
    """
    if transpose is not None:
        if size_of(label) == size_of(image):
            label = as_image(label).transpose(transpose)
        image = image.transpose(transpose)
    if size_of(label) != size_of(image):
        label_size, image_size = ("{}x{}".format(*size_of(pixels)) for pixels in (label, image))
        raise UserError(f"{source} is {label_size} but its image {path} is {image_size}: both must have one size")
    return image, label
