"""Image and label to tensors: the random training crop, and the whole image for scoring.

Images and labels of Pillow and arrays give the same bits. Of an array, which may be memory-mapped, only the crop's
window is read.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataloaders.base import IGNORE_INDEX
from utils.images import Pixels, as_image, size_of

SCALES = (0.5, 2.0)


class Crop(NamedTuple):
    """`rows` and `columns` of an image, resampled to `size` (height, width), then padded and perhaps flipped."""

    scale: float  # of the native size
    rows: slice
    columns: slice
    size: tuple[int, int]
    is_flipped: bool


class RandomScaleCrop:
    """Scale, pad, crop and flip as in the paper. Only the pixels of the crop are resampled.

    The scale is drawn from U(0.5, 2), of the native size or, with `base_size`, of the size with that short side.
    `crop_size` is (height, width). Padding, at the right and bottom before the flip, is `fill` (RGB, 0..255) in the
    image and 255 in the label. `jitter(image, rng)` changes the colors of the image before it is padded.
    """

    def __init__(
        self,
        crop_size: tuple[int, int],
        *,
        fill: tuple[int, int, int],
        base_size: int | None = None,
        jitter: Callable[[Tensor, np.random.Generator], Tensor] | None = None,
    ):
        self.crop_size, self.base_size, self.jitter = crop_size, base_size, jitter
        # Rows of padding, [3, 1, width] and [1, width]
        self.fill = torch.tensor(fill, dtype=torch.uint8).repeat(crop_size[1], 1).T[:, None]
        self.ignore = torch.full((1, crop_size[1]), IGNORE_INDEX, dtype=torch.uint8)

    def __call__(
        self, image: Pixels, label: Pixels, rng: np.random.Generator, center: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """RGB image and its label of the same size -> (uint8 [3, h, w], channels last, uint8 [h, w]) of the crop size.

        The pixel `center` (row, column) comes to the middle of the crop, as far as the image reaches.
        """
        crop = self.draw(size_of(image), rng, center)
        image_crop = resample(image, crop.rows, crop.columns, crop.size)
        label_crop = resample_label(label, crop.rows, crop.columns, crop.size)
        if self.jitter:
            image_crop = self.jitter(image_crop, rng)
        return self.pad_and_flip(image_crop, label_crop, crop)

    def draw(
        self, image_size: tuple[int, int], rng: np.random.Generator, center: tuple[int, int] | None = None
    ) -> Crop:
        """The crop that a call with the same `rng` makes of an image of `image_size` (width, height)."""
        native = 1.0 if self.base_size is None else self.base_size / min(image_size)
        scale = native * rng.uniform(*SCALES)
        row, column = center or (None, None)
        rows, height = draw_window(image_size[1], scale, self.crop_size[0], rng, row)
        columns, width = draw_window(image_size[0], scale, self.crop_size[1], rng, column)
        return Crop(scale, rows, columns, (height, width), is_flipped=rng.random() < 0.5)

    def padding(self, crop: Crop) -> Tensor:
        """Which pixels of a sample are padding: bool of the crop size."""
        image, label = torch.zeros(3, *crop.size, dtype=torch.uint8), torch.zeros(crop.size, dtype=torch.uint8)
        return self.pad_and_flip(image, label, crop)[1] == IGNORE_INDEX

    def pad_and_flip(self, image: Tensor, label: Tensor, crop: Crop) -> tuple[Tensor, Tensor]:
        if crop.size != self.crop_size:
            image, label = self.pad(image, label)
        return (image.flip(-1), label.flip(-1)) if crop.is_flipped else (image, label)

    def pad(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        height, width = label.shape
        padded_image = torch.empty(*self.crop_size, 3, dtype=torch.uint8).permute(2, 0, 1)
        padded_label = torch.empty(self.crop_size, dtype=torch.uint8)
        for pixels, padded, fill in ((image, padded_image, self.fill), (label, padded_label, self.ignore)):
            padded[..., :height, :width] = pixels
            padded[..., :height, width:] = fill[..., width:]
            padded[..., height:, :] = fill
        return padded_image, padded_label


def draw_window(
    side: int, scale: float, crop: int, rng: np.random.Generator, center: int | None = None
) -> tuple[slice, int]:
    """A random crop of a scaled side: (pixels of the side that it shows, number of pixels to resample them to).

    With `center`, a pixel of the side, that pixel is in its middle, as far as the side reaches. The window is rounded
    to whole pixels, so that image and label are cut from the same ones.
    """
    scaled = max(1, round(side * scale))
    length = min(scaled, crop)
    first = int(rng.integers(scaled - length + 1))
    if center is not None:
        first = min(max(0, round((center + 0.5) * scaled / side - length / 2)), scaled - length)
    start, end = (round(edge * side / scaled) for edge in (first, first + length))
    start = min(start, side - 1)
    return slice(start, max(end, start + 1)), length


def read_window(image: Pixels, rows: slice, columns: slice) -> np.ndarray:
    """The pixels of a window, contiguous and writable: uint8 [rows, columns, ...]."""
    if isinstance(image, Image.Image):
        # Pillow holds 4 bytes a pixel: what is cut off need not be converted
        return np.array(image.crop((columns.start, rows.start, columns.stop, rows.stop)))
    return np.require(image[rows, columns], requirements=["C", "W"])


def resample(image: Pixels, rows: slice, columns: slice, size: tuple[int, int]) -> Tensor:
    """Bilinear, with antialiasing where it shrinks: uint8 [3, *size], channels last."""
    window = torch.from_numpy(read_window(image, rows, columns))[None].permute(0, 3, 1, 2)  # [1, 3, rows, columns]
    # torch's uint8 kernel is within 1 of Pillow's, and faster; twice as fast again if the channels stay last
    return F.interpolate(window, size=size, mode="bilinear", antialias=True)[0]


def resample_label(label: Pixels, rows: slice, columns: slice, size: tuple[int, int]) -> Tensor:
    """Nearest pixel, with the same pixel centers: uint8 [*size]."""
    if isinstance(label, Image.Image):
        window = (columns.start, rows.start, columns.stop, rows.stop)
        return torch.from_numpy(np.array(label.resize(size[::-1], Image.Resampling.NEAREST, window)))
    ys, xs = (nearest(window, length) for window, length in ((rows, size[0]), (columns, size[1])))
    if size[0] < rows.stop - rows.start:  # fewer rows first
        return torch.from_numpy(take(label[ys], xs, axis=1))
    return torch.from_numpy(take(take(label[rows], xs, axis=1), ys - rows.start, axis=0))


def take(pixels: np.ndarray, places: np.ndarray, *, axis: int) -> np.ndarray:
    """Rows or columns at `places`, all of which exist: checking that by mode "raise" would take half as long again."""
    return np.asarray(pixels).take(places, axis=axis, mode="wrap")


def nearest(window: slice, length: int) -> np.ndarray:
    """Which pixels of `window` those of `length` resampled ones are: int64 [length], as Pillow's NEAREST.

    A center that lies between two pixels takes the one that the rounding of a running sum of steps gives: Pillow sums
    so, and another order would take the other one.
    """
    step = (window.stop - window.start) / length
    steps = np.full(length, step)
    steps[0] = window.start + 0.5 * step
    return np.add.accumulate(steps).astype(np.int64)


class CenterCrop:
    """jfzhang95's validation: short side to `size`, then the center `size` x `size`, of image and label."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Pixels, label: Pixels) -> tuple[Tensor, Tensor]:
        """RGB image and its label of the same size -> (uint8 [3, size, size], uint8 [size, size])."""
        image, label = as_image(image), as_image(label)
        scaled = tuple(int(side * self.size / min(image.size)) for side in image.size)
        left, top = (round((side - self.size) / 2) for side in scaled)
        window = (left, top, left + self.size, top + self.size)
        image = image.resize(scaled, Image.Resampling.BILINEAR).crop(window)
        return whole_image(image, label.resize(scaled, Image.Resampling.NEAREST).crop(window))


def whole_image(image: Pixels, label: Pixels) -> tuple[Tensor, Tensor]:
    """RGB image and its label -> (uint8 [3, H, W], uint8 [H, W]) at the native size."""
    pixels = np.array(np.asarray(image).transpose(2, 0, 1), order="C")
    return torch.from_numpy(pixels), torch.from_numpy(np.array(label))
