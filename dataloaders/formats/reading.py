"""Reads every image with its annotation, several at a time, before anything is written."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from dataloaders.base import collect_error
from dataloaders.checks.pairs import make_upright
from dataloaders.formats.masks import colored_problem
from dataloaders.formats.pixels import ColoredMask
from dataloaders.formats.source import Item, Reading, Source, raise_all
from utils.errors import UserError
from utils.images import open_header, open_image
from utils.progress import progress

# make_upright's inverse for each transpose
INVERSE = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


def read_all(source: Source) -> list[Reading]:
    """A Reading of each item. Raises UserError with all files that cannot be read or do not fit."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,  # threads: Pillow and NumPy release the lock while they work
        progress("reading", 0, len(source.items), unit="image") as bar,
    ):
        readings = []
        for reading in pool.map(lambda item: read_item(source, item), source.items):
            readings.append(reading)
            bar.update()
    colored = [
        item.label
        for item, reading in zip(source.items, readings, strict=True)
        if any(isinstance(problem, ColoredMask) for problem in reading.problems)
    ]
    problems = [colored_problem(colored, source.class_file, has_colors=source.colors is not None)] if colored else []
    others = [problem for reading in readings for problem in reading.problems if not isinstance(problem, ColoredMask)]
    raise_all(problems + others)
    return readings


def read_item(source: Source, item: Item) -> Reading:
    """The annotation's codes, and the problems of image and annotation."""
    problems: list[UserError] = []
    image = label = None
    reading = Reading({})
    with collect_error(problems):
        image, transpose = open_image(item.image)
    with collect_error(problems):
        label, reading = source.read_label(item)
    if image is not None and label is not None:
        with collect_error(problems):
            make_upright(image, label, transpose, path=item.image, source=str(item.label))
    return reading._replace(problems=problems)


def as_stored(label: np.ndarray, source: Source, item: Item) -> np.ndarray:
    """`label` for the image as stored, if loaders would turn it with the image although it is upright already."""
    if not source.is_upright:
        return label
    image, transpose = open_header(item.image)
    if transpose is None or label.shape != (image.height, image.width):
        return label
    return np.asarray(Image.fromarray(label).transpose(INVERSE.get(transpose, transpose)))


def presence(counts: Sequence[np.ndarray], num_classes: int) -> np.ndarray:
    """Whether each image has a pixel of each class: bool [images, classes]."""
    return np.array([row[:num_classes] > 0 for row in counts]).reshape(-1, num_classes)
