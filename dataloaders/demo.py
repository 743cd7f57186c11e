"""A set drawn on the fly: textured shapes that overlap, some small, some thin. It needs no file and no download.

An image depends on its split and number alone. Each class has a form, a texture and a range of hues.
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
from utils.errors import UserError
from utils.palettes import voc_palette

CLASSES = ("background", "disc", "box", "triangle", "ring", "star", "bar", "dot")
SPLITS = {"train": 480, "val": 80}
WIDTH, HEIGHT = 160, 120
DARK = 0.4  # light of the dark parts of a texture
VERSION = "1"


class Demo(SegmentationDataset):
    name, classes, palette = "demo", CLASSES, voc_palette(len(CLASSES))
    has_label_files = False

    def __init__(self, _root: Path, split: str, *, report: Report = raise_first):
        if split not in SPLITS:
            raise UserError(f"demo has no split {split!r}: choose one of {', '.join(SPLITS)}")
        self.split = split
        self.ids = [f"{split}_{number:04d}" for number in range(SPLITS[split])]

    def image_path(self, index: int) -> Path:
        return Path(f"demo-{VERSION}") / self.ids[index]

    label_path = image_path

    def label_digest(self, index: int) -> bytes:
        return hashlib.sha256(str(self.label_path(index)).encode()).digest()

    def open_label(self, index: int) -> Image.Image:
        return self.read(index)[1]

    def load_and_check(self, index: int, opened: Opener | None = None) -> Pair:
        image, label = draw_scene(np.random.default_rng((list(SPLITS).index(self.split), index)))
        return Pair(Image.fromarray(image), Image.fromarray(label), [])


def draw_scene(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [120, 160, 3], label uint8 [120, 160]): four to eight shapes over a cloudy ground."""
    image, label = draw_ground(random), np.zeros((HEIGHT, WIDTH), np.uint8)
    numbers = random.integers(1, len(CLASSES), size=random.integers(4, 9))
    for number in sorted(numbers, key=lambda n: n in (6, 7)):  # thin and small ones last, so that they are seen
        mask = draw_mask(CLASSES[number], random)
        bright = draw_color(number, random)
        mixture = TEXTURES[CLASSES[number]](*rotated_coordinates(mask, random), random)[:, None]
        image[mask], label[mask] = bright * (DARK + (1 - DARK) * mixture), number
    image += random.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), label


def draw_color(number: int, random: np.random.Generator) -> np.ndarray:
    """RGB of a class: its hue give or take a fifth of the way to the next one's, any light, seldom pale."""
    hue = (number + random.uniform(-0.2, 0.2)) / (len(CLASSES) - 1)
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, random.uniform(0.5, 1), random.uniform(0.5, 1)))


def draw_ground(random: np.random.Generator) -> np.ndarray:
    gray, tint = random.integers(60, 200, (4, 5, 1)), random.integers(-15, 16, (4, 5, 3))
    clouds = Image.fromarray((gray + tint).astype(np.uint8))
    return np.asarray(clouds.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64).copy()


def rotated_coordinates(mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in pixels of the places in `mask`, turned by a random angle and shifted."""
    y, x = np.argwhere(mask).T + random.uniform(0, 20, (2, 1))
    angle = random.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def waves(coordinate: np.ndarray, period: float) -> np.ndarray:
    return (np.sin(coordinate * (2 * np.pi / period)) > 0).astype(np.float64)


Texture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
TEXTURES: dict[str, Texture] = {
    "disc": lambda u, v, _: np.abs(waves(u, 12) - waves(v, 12)),  # chequers
    "box": lambda u, v, _: waves(u, 8),  # stripes
    "triangle": lambda u, v, _: waves(u, 9) * waves(v, 9),  # points
    "ring": lambda u, v, _: np.full(u.shape, 0.7),  # plain
    "star": lambda u, v, random: random.random(u.shape).round(),  # grain
    "bar": lambda u, v, _: np.ones(u.shape),  # plain
    "dot": lambda u, v, _: np.ones(u.shape),  # plain
}


def draw_mask(form: str, random: np.random.Generator) -> np.ndarray:
    """bool [120, 160]: the shape at a random place, size and turn."""
    center = random.uniform((0, 0), (WIDTH, HEIGHT))
    radius, turn = random.uniform(16, 34), random.uniform(0, 2 * np.pi)
    canvas = Image.new("1", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(canvas)
    if form == "disc":
        pen.circle(tuple(center), radius, fill=1)
    elif form == "ring":
        pen.circle(tuple(center), radius, outline=1, width=int(radius / 3))
    elif form == "dot":
        pen.circle(tuple(center), random.uniform(4, 7), fill=1)
    elif form == "bar":
        half = random.uniform(30, 70) * np.array([np.cos(turn), np.sin(turn)])
        pen.line([*(center - half), *(center + half)], fill=1, width=int(random.integers(3, 6)))
    else:
        pen.polygon(polygon(form, center, radius, turn), fill=1)
    return np.asarray(canvas)


def polygon(form: str, center: np.ndarray, radius: float, turn: float) -> list[tuple[float, float]]:
    corners = {"triangle": 3, "box": 4, "star": 10}[form]
    angles = turn + np.arange(corners) * (2 * np.pi / corners)
    radii = np.full(corners, radius)
    if form == "star":
        radii[::2] *= 0.5
    return [tuple(center + r * np.array([np.cos(a), np.sin(a)])) for r, a in zip(radii, angles, strict=True)]
