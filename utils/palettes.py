"""Class names and colors that belong to the definition of a dataset."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

Palette = Sequence[tuple[int, int, int]]  # RGB by class number

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
    """VOC's color of each class: the bits of its number, dealt to red, green and blue from the highest bit down."""
    return [tuple(_channel(number, first_bit) for first_bit in range(3)) for number in range(num_classes)]


def _channel(number: int, first_bit: int) -> int:
    return sum(((number >> (first_bit + 3 * place)) & 1) << (7 - place) for place in range(3))


def palette_image(label: np.ndarray, palette: list[tuple[int, int, int]]) -> Image.Image:
    """Class numbers uint8 [H, W] as a palette PNG's content; what is no class is white."""
    image = Image.fromarray(label)
    colors = [*palette, *[(255, 255, 255)] * (256 - len(palette))]
    image.putpalette([channel for color in colors for channel in color])
    return image
