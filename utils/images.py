"""Image and label files: decoding to 8-bit RGB or class numbers, and the EXIF orientation."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import BrokenImage, UserError
from utils.plain_files import PNG_START, decode_jpeg, decode_png_label, read_jpeg_header

# A decoded image (RGB) or label (one channel): of Pillow, or a uint8 array [H, W, 3] or [H, W]
Pixels = Image.Image | np.ndarray

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

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")


def open_image(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB image as stored, transpose that makes it upright or None).

    Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read or has more than
    8 bits a channel.
    """
    image = decode(path)
    return to_rgb(image, path), find_transpose(image)


def open_pixels(path: Path) -> tuple[Pixels, Image.Transpose | None]:
    """As `open_image`, to the same bits in less time: most upright JPEG files become arrays."""
    content = read_if_starts(path, b"\xff\xd8")
    header = content and read_jpeg_header(content)
    if header and header.is_plain and not (header.has_metadata and is_turned(content)):
        pixels = decode_jpeg(content)
        if pixels is not None:
            return pixels, None
    return open_image(path)


def is_turned(content: bytes) -> bool:
    """Whether the content of a file must be turned, or cannot be read."""
    try:
        return find_transpose(Image.open(io.BytesIO(content))) is not None
    except DECODE_ERRORS:
        return True


def read_if_starts(path: Path, start: bytes) -> bytes | None:
    """The content of a file that begins with `start`; None for another or one that cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            if file.read(len(start)) != start:
                return None
            file.seek(0)
            return file.read()
    except OSError:  # decoding reports it
        return None


def size_of(image: Pixels) -> tuple[int, int]:
    """(width, height) of an image or label."""
    return image.size if isinstance(image, Image.Image) else image.shape[1::-1]


def as_image(pixels: Pixels) -> Image.Image:
    """Of Pillow; an array is copied."""
    return pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)


def open_encoded(content: bytes, name: str) -> tuple[Image.Image, Image.Transpose | None]:
    """As `open_image`, of the content of a file; errors call it `name`."""
    image = decode(io.BytesIO(content), name)
    return to_rgb(image, name), find_transpose(image)


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


def open_label_pixels(path: Path) -> Pixels:
    """As `open_label`, to the same values in less time: most palette PNG files become arrays."""
    content = read_if_starts(path, PNG_START)
    label = None if content is None else decode_png_label(content)
    return open_label(path) if label is None else label


def decode(file: Path | io.BytesIO, name: str = "") -> Image.Image:
    """Raises BrokenImage for content that cannot be decoded, UserError for a file that cannot be read. Errors call it
    `name` (default: its path).
    """
    name = name or str(file)
    try:
        image = identify(file, name)
        image.load()
    except FileNotFoundError:
        raise UserError(f"{name} is missing: put it there, or leave it out") from None
    except UserError:
        raise
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:  # raised by the system, not by Pillow
            raise UserError(f"{name} cannot be read ({error.strerror}): check the disk and the permissions") from error
        reason = "no known format" if isinstance(file, io.BytesIO) and unidentified(error) else error
        raise BrokenImage(f"{name} cannot be read as an image ({reason}): replace it", name) from error
    return image


def unidentified(error: Exception) -> bool:
    """Whether Pillow knows no format of that content; its message then shows the address of a BytesIO."""
    return isinstance(error, UnidentifiedImageError)


def identify(file: Path | io.BytesIO, name: str) -> Image.Image:
    """The image of a file, not yet decoded; HEIC with pillow-heif. Raises UserError if that is missing."""
    try:
        return Image.open(file)
    except UnidentifiedImageError:
        brand = major_brand(file)
        if brand in AVIF_BRANDS:
            raise UserError(f"{name} is an AVIF image: pip install 'pillow>=11.3', or save it as JPEG") from None
        if brand not in HEIF_BRANDS:
            raise
    register_heif(name)
    return Image.open(file)


def major_brand(file: Path | io.BytesIO) -> bytes:
    """The four letters of an ISO base media file (HEIC, AVIF) that name its format; empty for other files."""
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[:12]
    else:
        with open(file, "rb") as stream:
            head = stream.read(12)
    return head[8:12] if head[4:8] == b"ftyp" else b""


def register_heif(name: str) -> None:
    """Let Pillow open HEIC. Raises UserError, for the image `name`, without pillow-heif."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(f"{name} is a HEIC image: pip install pillow-heif, or save it as JPEG") from None
    register_heif_opener()


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
