"""Image and label files: decoding to 8-bit RGB or class numbers, and the EXIF orientation."""

import contextlib
import struct
import zlib
from pathlib import Path

from PIL import Image

from utils.errors import BrokenImage, UserError

ORIENTATION_TAG = 0x0112
# EXIF orientation -> transpose that makes the stored image upright
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow raises for content that it cannot decode
DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def open_image(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB image as stored, transpose that makes it upright or None).

    Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read or has more than
    8 bits a channel.
    """
    image = decode(path)
    return to_rgb(image, path), find_transpose(image)


def open_header(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """As `open_image`, but decodes no pixels: the image is black, in mode L, of the size of the file's."""
    with contextlib.suppress(*DECODE_ERRORS), Image.open(path) as image:
        if not is_deep(image):
            # Not image.getexif: that of a PNG file decodes all pixels
            orientation = Image.Image.getexif(image).get(ORIENTATION_TAG)
            return Image.new("L", image.size), TRANSPOSES.get(orientation)
    return open_image(path)  # raises the error that names the file


def open_label(path: Path) -> Image.Image:
    """Class numbers of a gray or palette PNG, in mode L or P (both resample as numbers).

    Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read or has another
    mode.
    """
    label = decode(path)
    if label.mode == "1":
        return label.convert("L").point(lambda value: value // 255)
    if label.mode not in ("L", "P"):
        kind = "16-bit" if label.mode.startswith("I") else label.mode
        raise UserError(
            f"{path} is a {kind} image: a label has one 8-bit channel of class numbers; save it as a gray or "
            "palette PNG (python -m dataloaders.convert does)"
        )
    return label


def decode(path: Path) -> Image.Image:
    """Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or leave it out") from None
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # raised by the system, not by Pillow
            raise UserError(f"{path} cannot be read ({error.strerror}): check the disk and the permissions") from error
        raise BrokenImage(f"{path} cannot be read as an image ({error}): replace it", path) from error
    return image


def to_rgb(image: Image.Image, source: object) -> Image.Image:
    """Raises UserError that names `source` for more than 8 bits a channel: values above 255 would all become white."""
    if is_deep(image):
        raise UserError(f"{source} has more than 8 bits a channel (mode {image.mode}): save it with 8")
    return image if image.mode == "RGB" else image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether the image has more than 8 bits a channel."""
    return image.mode.startswith(("I", "F"))


def find_transpose(image: Image.Image) -> Image.Transpose | None:
    """The transpose that makes the image upright; None if it is upright or its EXIF data cannot be read."""
    try:
        return TRANSPOSES.get(image.getexif().get(ORIENTATION_TAG))
    except DECODE_ERRORS:
        return None
