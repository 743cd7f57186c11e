"""Class names and colors of VOC and Cityscapes, and images in these colors."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

Palette = Sequence[tuple[int, int, int]]  # RGB, 0..255, by class number

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip

CITYSCAPES_PALETTE = [
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
]  # fmt: skip


def voc_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """VOC's color of each class: bit 3i + c of its number is bit 7 - i of channel c (VOCdevkit, VOClabelcolormap)."""
    return [tuple(channel_value(number, channel) for channel in range(3)) for number in range(num_classes)]


def channel_value(number: int, channel: int) -> int:
    return sum(((number >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))


def palette_image(label: np.ndarray, palette: Palette) -> Image.Image:
    """Class numbers uint8 [H, W] as an image in mode P. Values without a color in `palette` are white."""
    image = Image.fromarray(label)
    colors = [*palette, *[(255, 255, 255)] * (256 - len(palette))]
    image.putpalette([channel for color in colors for channel in color])
    return image
