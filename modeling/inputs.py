"""What people pass to a Segmenter, as RGB images that are upright."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from utils.errors import UserError
from utils.image_files import list_folder, require_no_url
from utils.images import find_transpose, open_encoded, open_image, to_rgb

ACCEPTED = (
    "a path, an open file, its bytes, a PIL image, an array [H, W, 3] or [H, W] or a tensor [3, H, W], uint8 or "
    "float in 0..1; or several, in a list or a folder"
)
CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
PATHS, BYTES, ARRAYS = str | os.PathLike, bytes | bytearray | memoryview, np.ndarray | torch.Tensor


class InputImage(NamedTuple):
    """`image`: RGB, upright. `path`: its file, if it was given as one."""

    image: Image.Image
    path: Path | None = None


def read_images(images: object) -> Iterator[InputImage]:
    """All images in `images`: one of them, an iterable, a folder (without those below it, sorted by name), or a batch
    with one more dimension than an image. Reads each when it is asked for.

    Raises UserError for anything else, and for an image with more than 8 bits a channel.
    """
    if is_one_image(images):
        yield InputImage(to_rgb_image(images), path_of(images))
        return
    for image in images_in_folder(Path(images)) if isinstance(images, PATHS) else images:
        yield from read_images(image)


def is_one_image(images: object) -> bool:
    """Whether it is at most one image, not several. What is neither counts as one."""
    if isinstance(images, PATHS):
        return not Path(images).expanduser().is_dir()
    if isinstance(images, ARRAYS):
        return images.ndim != 4
    is_single = isinstance(images, (Image.Image, Mapping, *BYTES.__args__)) or hasattr(images, "read")
    return is_single or not isinstance(images, Iterable)


def images_in_folder(folder: Path) -> list[Path]:
    content = list_folder(folder.expanduser())
    if not content.images:
        raise UserError(content.problem())
    return content.images


def path_of(image: object) -> Path | None:
    """The file of an image that was given as a path, or opened by Pillow or Python."""
    if isinstance(image, PATHS):
        return Path(image)
    name = getattr(image, "filename", None) or getattr(image, "name", None)
    return Path(name) if isinstance(name, PATHS) and name else None


def to_rgb_image(image: object) -> Image.Image:
    """RGB and upright, as training reads images; transparency is dropped.

    Raises UserError for anything but an image of 8 bits a channel, or of floats in 0..1.
    """
    stored, turn = open_any(image)
    upright = stored if turn is None else stored.transpose(turn)
    plain = Image.new("RGB", upright.size)  # without EXIF data, whose orientation would be applied again
    plain.paste(upright)
    return plain


def open_any(image: object) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB image as stored, transpose that makes it upright or None)."""
    if isinstance(image, PATHS):
        require_no_url(image)
        return open_image(Path(image).expanduser())
    if isinstance(image, BYTES):
        return open_encoded(bytes(image), "the bytes of the image")
    if hasattr(image, "read"):
        return open_encoded(read_binary(image), str(path_of(image) or "the open file"))
    if isinstance(image, Image.Image) and all(image.size):
        return to_rgb(image, getattr(image, "filename", "") or "the image"), find_transpose(image)
    if isinstance(image, ARRAYS) and (array := channels_last(image)) is not None:
        return to_rgb(Image.fromarray(to_8_bits(array)), "the array"), None
    raise UserError(f"{describe(image)} is no image: give {ACCEPTED}")


def read_binary(file: object) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise UserError(f"{path_of(file) or 'the file'} is open as text: open it with mode 'rb'")
    return content


def channels_last(image: np.ndarray | torch.Tensor) -> np.ndarray | None:
    """[H, W], [H, W, 3] or [H, W, 4] of an array whose last dimension, or a tensor whose first, is that of channels;
    None if it is neither uint8 nor float, has another shape or no pixel.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    is_image = image.ndim == 2 or (image.ndim == 3 and image.shape[-1] in CHANNELS)
    if not is_image or not image.size or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
        return None
    return np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image)


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """Floats in 0..1 as uint8 0..255. Raises UserError for values outside."""
    if array.dtype == np.uint8:
        return array
    low, high = array.min(), array.max()
    if not 0 <= low <= high <= 1:  # NaN too
        raise UserError(
            f"the array has values from {low:.4g} to {high:.4g}: give floats in 0..1, or uint8 0..255 (the segmenter "
            "subtracts the mean itself)"
        )
    return (array * 255).round().astype(np.uint8)


def describe(image: object) -> str:
    """The type and size of `image`, for an error message."""
    if isinstance(image, Image.Image):
        return f"a PIL image of {image.width}x{image.height}"
    if isinstance(image, ARRAYS):
        return f"{type(image).__name__} {image.dtype} [{', '.join(map(str, image.shape))}]"
    return type(image).__name__
