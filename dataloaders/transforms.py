"""Picture and label to arrays: the random training crop, and the whole picture for scoring."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dataloaders.base import IGNORE_INDEX

SCALES = (0.5, 2.0)


class RandomScaleCrop:
    """Scale, pad, crop and flip as the paper trains, resampling only the pixels that end up in the crop.

    `crop_size` (height, width). The scale is drawn from U(0.5, 2) of the native size, or of short side `base_size`.
    Padding, right and bottom before the flip, is `fill` (RGB) in the picture and 255 in the label.
    """

    def __init__(self, crop_size: tuple[int, int], *, fill: tuple[int, int, int], base_size: int | None = None):
        self.crop_size, self.fill, self.base_size = crop_size, fill, base_size

    def __call__(self, picture: Image.Image, label: Image.Image, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """-> picture uint8 [3, h, w], label uint8 [h, w] of the crop size."""
        native = 1.0 if self.base_size is None else self.base_size / min(picture.size)
        scale = native * random.uniform(*SCALES)
        scaled = [max(1, round(side * scale)) for side in picture.size]  # width, height
        kept = [min(side, crop) for side, crop in zip(scaled, reversed(self.crop_size), strict=True)]
        start = [int(random.integers(side - keep + 1)) for side, keep in zip(scaled, kept, strict=True)]
        end = [a + b for a, b in zip(start, kept, strict=True)]
        ratio = [side / whole for side, whole in zip(picture.size, scaled, strict=True)]
        # Pillow reads past the box's edge where its filter reaches, so this is a crop of the whole resized picture
        box = [min(edge * r, side) for edge, r, side in zip(start + end, ratio * 2, picture.size * 2, strict=True)]
        picture = picture.resize(kept, Image.Resampling.BILINEAR, box)
        label = label.resize(kept, Image.Resampling.NEAREST, box)
        if is_flipped := random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            label = label.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.pad(picture, label, is_flipped)

    def pad(self, picture: Image.Image, label: Image.Image, is_flipped: bool) -> tuple[Tensor, Tensor]:
        height, width = self.crop_size
        left = width - label.width if is_flipped else 0
        place = (slice(0, label.height), slice(left, left + label.width))
        padded = np.empty((3, height, width), np.uint8)
        padded_label = np.full((height, width), IGNORE_INDEX, np.uint8)
        if label.size != (width, height):
            padded[:] = np.array(self.fill, np.uint8)[:, None, None]
        for channel, band in zip(padded, picture.split(), strict=True):
            channel[place] = band
        padded_label[place] = label
        return torch.from_numpy(padded), torch.from_numpy(padded_label)


def whole_picture(picture: Image.Image, label: Image.Image) -> tuple[Tensor, Tensor]:
    """Picture uint8 [3, H, W] and label uint8 [H, W] at their native size."""
    image = np.stack([np.asarray(band) for band in picture.split()])
    return torch.from_numpy(image), torch.from_numpy(np.array(label, np.uint8))
