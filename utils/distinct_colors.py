"""Colors for any classes that are far apart to the eye: each is the farthest from all before it, in OKLab.

OKLab: https://bottosson.github.io/posts/oklab; a distance of 0.02 is just noticeable side by side.
"""

import functools
from collections.abc import Sequence

import numpy as np

from utils.palettes import Palette

LEVELS = range(0, 256, 17)  # of each channel of a candidate
LIGHTNESS = 0.4, 0.9  # of 1: darker ones look black, lighter ones are hard to tell from the white of ignored pixels
MIN_CHROMA = 0.04  # grays would look like part of a photograph
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
TO_CONE_RESPONSES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
TO_OKLAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def distinct_palette(classes: Sequence[str]) -> Palette:
    """A color of each class. Black if the first is the background; the others depend on their position alone."""
    return [BLACK, *distinct_colors(len(classes) - 1)] if has_background(classes) else distinct_colors(len(classes))


def has_background(classes: Sequence[str]) -> bool:
    """Whether the first class is called background (labelme: _background_)."""
    return classes[0].strip("_").lower() == "background"


@functools.cache
def distinct_colors(number: int) -> list[tuple[int, int, int]]:
    """The first `number` of one sequence: each color is the farthest from black, white and those before it."""
    colors = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 3)
    # Whole numbers, so that every machine finds the same color the farthest
    points = (10_000 * oklab(colors)).round().astype(np.int64)
    lightness, chroma = points[:, 0] / 10_000, np.hypot(points[:, 1], points[:, 2]) / 10_000
    is_candidate = (lightness >= LIGHTNESS[0]) & (lightness <= LIGHTNESS[1]) & (chroma >= MIN_CHROMA)
    black, white = points[0], points[-1]
    colors, points = colors[is_candidate], points[is_candidate]
    distances = np.minimum(squared_distances(points, black), squared_distances(points, white))
    chosen = []
    for _ in range(number):
        farthest = distances.argmax()
        chosen.append(tuple(colors[farthest].tolist()))
        distances = np.minimum(distances, squared_distances(points, points[farthest]))
    return chosen


def squared_distances(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return ((points - point) ** 2).sum(1)


def oklab(colors: np.ndarray) -> np.ndarray:
    """sRGB 0..255 [N, 3] -> lightness 0..1 and the two color axes [N, 3]."""
    values = np.asarray(colors) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_CONE_RESPONSES.T) @ TO_OKLAB.T
