"""An image and its label: the label's values against the classes, its orientation and size against the image."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dataloaders.checks.layout import first_five
from utils.constants import IGNORE_INDEX
from utils.errors import UserError

Opener = Callable[[Path], tuple[Image.Image, Image.Transpose | None]]  # as utils.images.open_image


class Pair(NamedTuple):
    """RGB image and one-channel label, upright and of one size if there are no problems; None if it cannot be read."""

    image: Image.Image | None
    label: Image.Image | None
    problems: list[UserError]


def check_values(label: Image.Image, num_classes: int, source: str, *, first_value: int = 0) -> None:
    """Raise UserError that names `source` for a value that is neither a class nor 255.

    `first_value`: how its files store class 0; see `SegmentationDataset`.
    """
    counts = label.histogram()
    invalid = [value for value in range(num_classes, IGNORE_INDEX) if counts[value]]
    if invalid:
        ignored = ", ".join(map(str, (*range(first_value), IGNORE_INDEX)))
        raise UserError(
            f"{source} holds {first_five(invalid)}, outside the {num_classes} classes "
            f"{first_value}..{first_value + num_classes - 1} ({ignored}: ignored): correct the label or add the classes"
        )


def make_upright(
    image: Image.Image, label: Image.Image, transpose: Image.Transpose | None, *, path: Path, source: str
) -> tuple[Image.Image, Image.Image]:
    """Both upright: `transpose` applies to the image, and to a label that has the size of the stored image.

    Raises UserError that names the label's `source` and the image's `path` if the sizes differ.
    """
    if transpose is not None:
        label = label.transpose(transpose) if label.size == image.size else label
        image = image.transpose(transpose)
    if label.size != image.size:
        raise UserError(
            f"{source} is {label.width}x{label.height} but its image {path} is {image.width}x{image.height}: "
            "both must have one size"
        )
    return image, label
