"""A picture and its label: decoded, upright, and checked against each other and the classes."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from errors import BrokenPicture, UserError
from utils.losses import IGNORE_INDEX

ORIENTATION_TAG = 0x0112
# EXIF orientation -> how to turn the stored picture upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises over content that it cannot decode
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)

Opener = Callable[[Path], tuple[Image.Image, Image.Transpose | None]]


class Pair(NamedTuple):
    """(RGB picture, one-channel label), upright and of one size; None for what cannot be read, and why not."""

    picture: Image.Image | None
    label: Image.Image | None
    problems: list[UserError]


def open_picture(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB picture as stored, the turn that makes it upright or None)."""
    picture = decode(path)
    return to_rgb(picture, path), find_turn(picture)


def to_rgb(picture: Image.Image, source: object) -> Image.Image:
    """Raises UserError, naming `source`, where values above 255 would all become white."""
    if is_deep(picture):
        raise UserError(f"{source} has more than 8 bits a channel (mode {picture.mode}): save it with 8")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def is_deep(picture: Image.Image) -> bool:
    """More than 8 bits a channel."""
    return picture.mode.startswith(("I", "F"))


def find_turn(picture: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright. EXIF that cannot be read asks for nothing."""
    try:
        return TURNS.get(picture.getexif().get(ORIENTATION_TAG))
    except DECODE_ERRORS:
        return None


def open_label(path: Path) -> Image.Image:
    """Class numbers of a grey or palette PNG, mode L or P (both resample as numbers)."""
    label = decode(path)
    if label.mode == "1":
        return label.convert("L").point(lambda value: value // 255)
    if label.mode not in ("L", "P"):
        kind = "16-bit" if label.mode.startswith("I") else label.mode
        raise UserError(
            f"{path} is a {kind} picture: a label has one 8-bit channel of class numbers; save it as a grey or "
            "palette PNG"
        )
    return label


def decode(path: Path) -> Image.Image:
    """Raises BrokenPicture for content that cannot be decoded, UserError for a file that cannot be read at all."""
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or leave it out") from None
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's or the system's word, not Pillow's
            raise UserError(f"{path} cannot be read ({error.strerror}): look at the disk and its rights") from error
        raise BrokenPicture(f"{path} cannot be read as a picture ({error}): replace it", path) from error
    return picture


def check_values(label: Image.Image, num_classes: int, source: str) -> None:
    """Raise UserError where a value is neither a class nor 255."""
    counts = label.histogram()
    strange = [value for value in range(num_classes, IGNORE_INDEX) if counts[value]]
    if strange:
        shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise UserError(
            f"{source} holds {shown}, outside the {num_classes} classes 0..{num_classes - 1} (255: ignored): "
            "correct the label or add the classes"
        )


def turn_upright(
    picture: Image.Image, label: Image.Image, turn: Image.Transpose | None, *, path: Path, source: str
) -> tuple[Image.Image, Image.Image]:
    """Both upright; a label of the stored size turns with its picture. Raises UserError where sizes differ."""
    if turn is not None:
        label = label.transpose(turn) if label.size == picture.size else label
        picture = picture.transpose(turn)
    if label.size != picture.size:
        raise UserError(
            f"{source} is {label.width}x{label.height} but its picture {path} is {picture.width}x{picture.height}: "
            "both must have one size"
        )
    return picture, label


def open_header(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """As `open_picture`, but a blank picture of the same size: nothing is decoded."""
    try:
        with Image.open(path) as picture:
            # Not the file's own getexif: a PNG's decodes all of it
            turn, size = TURNS.get(Image.Image.getexif(picture).get(ORIENTATION_TAG)), picture.size
            is_usable = not is_deep(picture)
    except DECODE_ERRORS:
        is_usable = False
    return (Image.new("L", size), turn) if is_usable else open_picture(path)  # which says what is wrong
