"""A generated dataset: textured shapes that overlap, some of them small or thin. It needs no files and no download.

An image depends on its split and index alone. Each class has its shape, texture and range of hues.
"""

import colorsys
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import Report, raise_first
from dataloaders.checks.pairs import Opener, Pair
from utils.distinct_colors import distinct_palette
from utils.errors import UserError
from utils.images import open_image

CLASSES = ("background", "disc", "box", "triangle", "ring", "star", "bar", "dot")
SPLITS = {"train": 480, "val": 80}  # number of images
WIDTH, HEIGHT = 160, 120
DARK = 0.4  # brightness of the dark parts of a texture, of 1
VERSION = "1"  # part of the label digests: another drawing needs another one


class Demo(SegmentationDataset):
    """160x120 images with eight classes. `root`, `report` and `opener` have no effect: there are no files."""

    name, classes, palette = "demo", CLASSES, distinct_palette(CLASSES)
    has_label_files = False

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        if split not in SPLITS:
            raise UserError(f"demo has no split {split!r}: choose one of {', '.join(SPLITS)}")
        self.split = split
        self.ids = [f"{split}_{number:04d}" for number in range(SPLITS[split])]

    def image_path(self, index: int) -> Path:
        """No file: a name for messages."""
        return Path(f"demo-{VERSION}") / self.ids[index]

    label_path = image_path

    def label_digest(self, index: int) -> bytes:
        return hashlib.sha256(str(self.label_path(index)).encode()).digest()

    def sample_stamp(self, index: int) -> str:
        return str(self.image_path(index))

    def open_label(self, index: int) -> Image.Image:
        return self.read(index)[1]

    def load_and_check(self, index: int, opener: Opener = open_image) -> Pair:
        image, label = draw_scene(np.random.default_rng((list(SPLITS).index(self.split), index)))
        return Pair(Image.fromarray(image), Image.fromarray(label), [])


def draw_scene(rng: np.random.Generator, *, width: int = WIDTH, height: int = HEIGHT) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [height, width, 3], label uint8 [height, width]): shapes on a cloudy background.

    Four to eight of them on an area of 160x120 pixels, whatever the size.
    """
    image, label = draw_background(rng, width, height), np.zeros((height, width), np.uint8)
    num_areas = max(1, width * height // (WIDTH * HEIGHT))
    numbers = rng.integers(1, len(CLASSES), size=num_areas * rng.integers(4, 9))
    for number in sorted(numbers, key=lambda n: n in (6, 7)):  # thin and small shapes last, so that none covers them
        mask = draw_mask(CLASSES[number], rng, width, height)
        color = draw_color(number, rng)
        texture = TEXTURES[CLASSES[number]](*rotated_coordinates(mask, rng), rng)[:, None]
        image[mask], label[mask] = color * (DARK + (1 - DARK) * texture), number
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), label


def draw_background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """float64 [height, width, 3]: a coarse random grid, enlarged."""
    gray, tint = rng.integers(60, 200, (4, 5, 1)), rng.integers(-15, 16, (4, 5, 3))
    clouds = Image.fromarray((gray + tint).astype(np.uint8))
    return np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC), np.float64).copy()


def draw_color(number: int, rng: np.random.Generator) -> np.ndarray:
    """RGB, 0..255: a hue within a fifth of the distance between classes, saturation and value from 0.5 to 1."""
    hue = (number + rng.uniform(-0.2, 0.2)) / (len(CLASSES) - 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 1), rng.uniform(0.5, 1)))


def rotated_coordinates(mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) of the pixels of `mask`, in pixels, after a random rotation and shift."""
    y, x = np.argwhere(mask).T + rng.uniform(0, 20, (2, 1))
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def square_wave(coordinate: np.ndarray, period: float) -> np.ndarray:
    """0 and 1 in turn; `period` in pixels."""
    return (np.sin(coordinate * (2 * np.pi / period)) > 0).astype(np.float64)


# Brightness of each pixel, 0..1, by its coordinates (u, v)
Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
TEXTURES: dict[str, Texture] = {
    "disc": lambda u, v, _: np.abs(square_wave(u, 12) - square_wave(v, 12)),  # checkerboard
    "box": lambda u, v, _: square_wave(u, 8),  # stripes
    "triangle": lambda u, v, _: square_wave(u, 9) * square_wave(v, 9),  # grid of squares
    "ring": lambda u, v, _: np.full(u.shape, 0.7),  # plain
    "star": lambda u, v, rng: rng.random(u.shape).round(),  # noise
    "bar": lambda u, v, _: np.ones(u.shape),  # plain
    "dot": lambda u, v, _: np.ones(u.shape),  # plain
}


def draw_mask(name: str, rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """bool [height, width]: the shape of a class at a random place, size and angle."""
    center = rng.uniform((0, 0), (width, height))
    radius, angle = rng.uniform(16, 34), rng.uniform(0, 2 * np.pi)
    canvas = Image.new("1", (width, height))
    pen = ImageDraw.Draw(canvas)
    if name == "disc":
        pen.circle(tuple(center), radius, fill=1)
    elif name == "ring":
        pen.circle(tuple(center), radius, outline=1, width=int(radius / 3))
    elif name == "dot":
        pen.circle(tuple(center), rng.uniform(4, 7), fill=1)
    elif name == "bar":
        half = rng.uniform(30, 70) * np.array([np.cos(angle), np.sin(angle)])
        pen.line([*(center - half), *(center + half)], fill=1, width=int(rng.integers(3, 6)))
    else:
        pen.polygon(corners(name, center, radius, angle), fill=1)
    return np.asarray(canvas)


def corners(name: str, center: np.ndarray, radius: float, angle: float) -> list[tuple[float, float]]:
    """(x, y) of each corner of a triangle, box or star."""
    num_corners = {"triangle": 3, "box": 4, "star": 10}[name]
    angles = angle + np.arange(num_corners) * (2 * np.pi / num_corners)
    radii = np.full(num_corners, radius)
    if name == "star":
        radii[::2] *= 0.5
    return [tuple(center + r * np.array([np.cos(a), np.sin(a)])) for r, a in zip(radii, angles, strict=True)]
