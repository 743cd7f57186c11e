"""Image and label to tensors: the random training crop, and the whole image for scoring."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataloaders.base import IGNORE_INDEX

SCALES = (0.5, 2.0)


class RandomScaleCrop:
    """Scale, pad, crop and flip as the paper trains, resampling only the pixels that end up in the crop.

    `crop_size` (height, width). The scale is drawn from U(0.5, 2) of the native size, or of short side `base_size`.
    Padding, right and bottom before the flip, is `fill` (RGB) in the image and 255 in the label.
    """

    def __init__(self, crop_size: tuple[int, int], *, fill: tuple[int, int, int], base_size: int | None = None):
        self.crop_size, self.base_size = crop_size, base_size
        self.fill = torch.tensor(fill, dtype=torch.uint8).view(3, 1, 1)

    def __call__(self, picture: Image.Image, label: Image.Image, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """-> image uint8 [3, h, w], label uint8 [h, w] of the crop size."""
        native = 1.0 if self.base_size is None else self.base_size / min(picture.size)
        scale = native * random.uniform(*SCALES)
        rows, height = draw_window(picture.height, scale, self.crop_size[0], random)
        columns, width = draw_window(picture.width, scale, self.crop_size[1], random)
        image = resample(picture, rows, columns, (height, width))
        labels = resample_label(label, rows, columns, (height, width))
        if (height, width) != self.crop_size:
            image, labels = self.pad(image, labels)
        if random.random() < 0.5:
            return image.flip(-1), labels.flip(-1)
        return image, labels

    def pad(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        height, width = labels.shape
        padded = torch.empty(3, *self.crop_size, dtype=torch.uint8).copy_(self.fill)
        padded_labels = torch.full(self.crop_size, IGNORE_INDEX, dtype=torch.uint8)
        padded[:, :height, :width], padded_labels[:height, :width] = image, labels
        return padded, padded_labels


def draw_window(side: int, scale: float, crop: int, random: np.random.Generator) -> tuple[slice, int]:
    """(pixels of a side to take, number of pixels to make of them) for a random crop of the scaled side.

    The window is rounded to whole pixels, so that image and label are cut from the very same ones.
    """
    scaled = max(1, round(side * scale))
    kept = min(scaled, crop)
    first = int(random.integers(scaled - kept + 1))
    start, end = (round(edge * side / scaled) for edge in (first, first + kept))
    start = min(start, side - 1)
    return slice(start, max(end, start + 1)), kept


def resample(picture: Image.Image, rows: slice, columns: slice, size: tuple[int, int]) -> Tensor:
    """Bilinear, with antialiasing where it shrinks: uint8 [3, *size]."""
    window = torch.from_numpy(np.array(picture)[rows, columns]).permute(2, 0, 1)[None]
    # torch's uint8 kernel gives what Pillow gives, in a third of its time (python -m benchmarks.input)
    return F.interpolate(window, size=size, mode="bilinear", antialias=True)[0]


def resample_label(label: Image.Image, rows: slice, columns: slice, size: tuple[int, int]) -> Tensor:
    """The nearest pixel, with the same pixel centers: uint8 [*size]."""
    window = (columns.start, rows.start, columns.stop, rows.stop)
    return torch.from_numpy(np.array(label.resize(size[::-1], Image.Resampling.NEAREST, window)))


class CenterCrop:
    """jfzhang95's validation: short side to `size`, then the center `size` x `size`, label alike."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, picture: Image.Image, label: Image.Image) -> tuple[Tensor, Tensor]:
        """-> image uint8 [3, size, size], label uint8 [size, size]."""
        scaled = tuple(int(side * self.size / min(picture.size)) for side in picture.size)
        left, top = (round((side - self.size) / 2) for side in scaled)
        window = (left, top, left + self.size, top + self.size)
        picture = picture.resize(scaled, Image.Resampling.BILINEAR).crop(window)
        return whole_image(picture, label.resize(scaled, Image.Resampling.NEAREST).crop(window))


def whole_image(picture: Image.Image, label: Image.Image) -> tuple[Tensor, Tensor]:
    """Image uint8 [3, H, W] and label uint8 [H, W] at their native size."""
    image = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
    return torch.from_numpy(image), torch.from_numpy(np.array(label))
