"""An image and its label, checked against each other and the classes."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from utils.errors import UserError
from utils.losses import IGNORE_INDEX

Opener = Callable[[Path], tuple[Image.Image, Image.Transpose | None]]


class Pair(NamedTuple):
    """(RGB image, one-channel label), upright and of one size; None for what cannot be read, and why not."""

    image: Image.Image | None
    label: Image.Image | None
    problems: list[UserError]


def check_values(label: Image.Image, num_classes: int, source: str) -> None:
    """Raise UserError where a value is neither a class nor 255."""
    counts = label.histogram()
    invalid = [value for value in range(num_classes, IGNORE_INDEX) if counts[value]]
    if invalid:
        abbreviated = ", ".join(map(str, invalid[:5])) + (", ..." if len(invalid) > 5 else "")
        raise UserError(
            f"{source} holds {abbreviated}, outside the {num_classes} classes 0..{num_classes - 1} (255: ignored): "
            "correct the label or add the classes"
        )


def make_upright(
    image: Image.Image, label: Image.Image, turn: Image.Transpose | None, *, path: Path, source: str
) -> tuple[Image.Image, Image.Image]:
    """Both upright; a label of the stored size turns with its image. Raises UserError where sizes differ."""
    if turn is not None:
        label = label.transpose(turn) if label.size == image.size else label
        image = image.transpose(turn)
    if label.size != image.size:
        raise UserError(
            f"{source} is {label.width}x{label.height} but its image {path} is {image.width}x{image.height}: "
            "both must have one size"
        )
    return image, label
