"""The pixels of mask files as codes: the values of gray and palette images, or colors."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX
from dataloaders.formats.classes import TRANSPARENT, color_code
from dataloaders.formats.source import Reading
from utils.errors import UserError
from utils.images import decode

LOSSY_FORMATS = ("JPEG", "MPO")


class ColoredMask(UserError):
    """A mask with colors where values are wanted."""


def read_codes(path: Path, *, as_colors: bool) -> tuple[Image.Image, Reading]:
    """(codes as image of mode L, LA, RGB or RGBA, Reading). Raises UserError; ColoredMask for colors as values."""
    stored = decode(path)
    traits = {"lossy"} if stored.format in LOSSY_FORMATS else set()
    traits |= {"gray"} if stored.mode in ("1", "L", "LA") or stored.mode.startswith("I") else set()
    colors = {}
    if as_colors:
        image = to_colors(stored, path)
    else:
        image, colors = to_values(stored, path), used_palette(stored)
        traits |= {"gray in RGB"} if stored.mode.startswith("RGB") else set()
    return image, Reading(count_codes(image), frozenset(traits), colors)


def to_colors(image: Image.Image, path: Path) -> Image.Image:
    """Mode RGB, or RGBA if any pixel is not opaque."""
    if image.mode.startswith(("I", "F")):
        image = narrow(image, path)
    has_alpha = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA")
    return opaque(image.convert("RGBA")) if has_alpha else image.convert("RGB")


def to_values(image: Image.Image, path: Path) -> Image.Image:
    """Mode L, or LA if any pixel is not opaque."""
    if image.mode.startswith(("I", "F", "1")):
        image = narrow(image, path)
    if image.mode in ("L", "P"):
        return Image.fromarray(np.asarray(image))
    if image.mode in ("LA", "PA"):
        return opaque(image.convert("LA"))
    channels = np.asarray(image.convert("RGB"))
    if (channels != channels[..., :1]).any():
        raise ColoredMask(f"{path} is a {image.mode} image of colors")
    return opaque(image.convert("RGBA").convert("LA"))


def narrow(image: Image.Image, path: Path) -> Image.Image:
    """A 1-bit or 16-bit image as mode L with the same values. Raises UserError for values above 255."""
    values = np.asarray(image)
    if image.mode.startswith("F") or values.max() > IGNORE_INDEX or values.min() < 0:
        kind = "floating-point" if image.mode.startswith("F") else "16-bit"
        raise UserError(
            f"{path} is a {kind} mask with values from {values.min()} to {values.max()}: class numbers are 0 to 254, "
            "and 255 for pixels to ignore; save it with 8 bits"
        )
    return Image.fromarray(values.astype(np.uint8))


def opaque(image: Image.Image) -> Image.Image:
    """Without the alpha channel if it is 255 throughout."""
    is_opaque = image.getchannel("A").getextrema() == (255, 255)
    return image.convert(image.mode.removesuffix("A")) if is_opaque else image


def used_palette(image: Image.Image) -> dict[int, tuple]:
    """The color of each number that occurs in a palette image; empty for other images."""
    if image.mode != "P":
        return {}
    palette = np.frombuffer(image.getpalette("RGB") and bytes(image.getpalette("RGB")), np.uint8).reshape(-1, 3)
    used = [number for number, count in enumerate(image.histogram()[:256]) if count and number < len(palette)]
    return {number: tuple(palette[number].tolist()) for number in used}


def count_codes(image: Image.Image) -> dict[int, int]:
    counts: dict[int, int] = {}
    for pixels, value in image.getcolors(image.width * image.height):
        code = code_of(value)
        counts[code] = counts.get(code, 0) + pixels
    return counts


def code_of(value: int | tuple[int, ...]) -> int:
    """Of a pixel of mode L, LA, RGB or RGBA."""
    if isinstance(value, int):
        return value
    if len(value) in (2, 4) and value[-1] < 255:
        return TRANSPARENT
    return value[0] if len(value) == 2 else color_code(*value[:3])


def codes_of(image: Image.Image) -> np.ndarray:
    """The code of each pixel, int32 [H, W]."""
    pixels = np.asarray(image).astype(np.int32)
    if pixels.ndim == 2:
        return pixels
    codes = pixels[..., 0] if image.mode == "LA" else color_code(*np.moveaxis(pixels[..., :3], -1, 0))
    return np.where(pixels[..., -1] < 255, TRANSPARENT, codes) if image.mode.endswith("A") else codes


def replace_codes(image: Image.Image, numbers: dict[int, int]) -> np.ndarray:
    """The class number of each pixel, uint8 [H, W]; `numbers` has that of each code."""
    known = np.array(sorted(numbers), np.int32)
    values = np.array([numbers[code] for code in known.tolist()], np.uint8)
    return values[np.searchsorted(known, codes_of(image))]
