"""Image and label files: decoded, as 8-bit RGB or class numbers, with the EXIF orientation beside them."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from utils.errors import BrokenImage, UserError

ORIENTATION_TAG = 0x0112
# EXIF orientation -> how to turn the stored image upright
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


def open_image(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB image as stored, the turn that makes it upright or None)."""
    image = decode(path)
    return to_rgb(image, path), find_transpose(image)


def to_rgb(image: Image.Image, source: object) -> Image.Image:
    """Raises UserError, naming `source`, where values above 255 would all become white."""
    if is_deep(image):
        raise UserError(f"{source} has more than 8 bits a channel (mode {image.mode}): save it with 8")
    return image if image.mode == "RGB" else image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """More than 8 bits a channel."""
    return image.mode.startswith(("I", "F"))


def find_transpose(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright. EXIF that cannot be read asks for nothing."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION_TAG))
    except DECODE_ERRORS:
        return None


def open_label(path: Path) -> Image.Image:
    """Class numbers of a gray or palette PNG, mode L or P (both resample as numbers)."""
    label = decode(path)
    if label.mode == "1":
        return label.convert("L").point(lambda value: value // 255)
    if label.mode not in ("L", "P"):
        kind = "16-bit" if label.mode.startswith("I") else label.mode
        raise UserError(
            f"{path} is a {kind} image: a label has one 8-bit channel of class numbers; save it as a gray or "
            "palette PNG"
        )
    return label


def decode(path: Path) -> Image.Image:
    """Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read at all."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there, or leave it out") from None
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's or the system's word, not Pillow's
            raise UserError(f"{path} cannot be read ({error.strerror}): look at the disk and its rights") from error
        raise BrokenImage(f"{path} cannot be read as an image ({error}): replace it", path) from error
    return image


def open_header(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """As `open_image`, but a blank image of the same size: nothing is decoded."""
    try:
        with Image.open(path) as image:
            # Not the file's own getexif: a PNG's decodes all of it
            turn, size = TURNS.get(Image.Image.getexif(image).get(ORIENTATION_TAG)), image.size
            is_usable = not is_deep(image)
    except DECODE_ERRORS:
        is_usable = False
    return (Image.new("L", size), turn) if is_usable else open_image(path)  # which says what is wrong
