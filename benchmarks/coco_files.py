"""Writes a made-up COCO dataset for benchmarks.coco: annotations, and empty files for images."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_tools

from dataloaders.coco_index import CATEGORIES

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500))  # height, width
OTHERS = tuple(category for category in range(1, 91) if category not in CATEGORIES)
SHARE_DRAWN, SHARE_PERSON, SHARE_CROWD = 0.57, 0.3, 0.01  # of all objects: VOC's classes, persons, crowds
NUM_OUTLINES = 1000  # different ones for each size; images repeat them
NUM_CROWDS = 30


def random_polygon(rng: np.random.Generator, height: int, width: int) -> list[float]:
    """A closed curve, [x0, y0, x1, y1, ...], from a few pixels to half of the image."""
    radius = min(rng.lognormal(3.5, 1), height / 2)
    corners = int(np.clip(rng.lognormal(1.7, 0.5) * radius**0.2, 4, 200))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    distances = radius * rng.uniform(0.6, 1.2, corners)
    center = rng.uniform((0, 0), (width, height))
    points = center + (distances * [np.cos(angles), rng.uniform(0.5, 1.5) * np.sin(angles)]).T
    return points.clip(0, (width, height)).round(2).ravel().tolist()


def random_outline(rng: np.random.Generator, size: tuple[int, int]) -> str:
    """JSON of one to three polygons."""
    return json.dumps([random_polygon(rng, *size) for _ in range(rng.choice([1, 2, 3], p=[0.8, 0.12, 0.08]))])


def random_crowd(rng: np.random.Generator, size: tuple[int, int]) -> str:
    """JSON of run lengths: ten blobs."""
    mask = mask_tools.decode(mask_tools.merge([
        mask_tools.frPyObjects([random_polygon(rng, *size)], *size)[0] for _ in range(10)
    ]))  # fmt: skip
    columns = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff([0, *edges, columns.size]).tolist()
    return json.dumps({"counts": [0, *counts] if columns[0] else counts, "size": size})


def categories(rng: np.random.Generator, count: int) -> np.ndarray:
    """Of so many objects."""
    kind = rng.random(count)
    chosen = np.where(kind < SHARE_DRAWN, rng.choice(CATEGORIES, count), rng.choice(OTHERS, count))
    return np.where(kind < SHARE_PERSON, 1, chosen)


def annotations(rng: np.random.Generator, num_images: int, num_outlines: int) -> Iterator[tuple[dict, list[str]]]:
    """(an image, its annotations as JSON without their ids)."""
    outlines = [[random_outline(rng, size) for _ in range(NUM_OUTLINES)] for size in SIZES]
    crowds = [[random_crowd(rng, size) for _ in range(NUM_CROWDS)] for size in SIZES]
    counts = rng.multinomial(num_outlines, rng.dirichlet(np.ones(num_images)))
    ids = np.sort(rng.choice(600_000, num_images, replace=False))
    for place in rng.permutation(num_images).tolist():
        kind, image_id, count = rng.integers(len(SIZES)), int(ids[place]), counts[place]
        image = {"license": 1, "file_name": f"{image_id:012d}.jpg", "coco_url": "", "id": image_id}
        image |= dict(zip(("height", "width"), SIZES[kind], strict=True))
        is_crowd = rng.random(count) < SHARE_CROWD
        choice = zip(is_crowd, rng.integers(NUM_OUTLINES, size=count), categories(rng, count).tolist(), strict=True)
        yield (
            image,
            [
                f'{{"segmentation": {crowds[kind][number % NUM_CROWDS] if crowd else outlines[kind][number]}, "area": '
                f'1234.5678, "iscrowd": {int(crowd)}, "image_id": {image_id}, "bbox": [10.25, 20.5, 100.75, 200.0], '
                f'"category_id": {category}, "id": '
                for crowd, number, category in choice
            ],
        )


def write_split(root: Path, split: str, num_images: int, num_outlines: int, *, seed: int) -> Path:
    """The annotation file and the empty images of a split. Returns the annotation file."""
    (root / f"{split}2017").mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    path, images, number = root / f"annotations/instances_{split}2017.json", [], 0
    with open(path, "w") as file:
        file.write('{"info": {}, "annotations": [')
        for image, texts in annotations(np.random.default_rng(seed), num_images, num_outlines):
            images.append(image)
            (root / f"{split}2017" / image["file_name"]).touch()
            for text in texts:
                file.write(f"{', ' if number else ''}{text}{number}}}")
                number += 1
        listed = [{"id": category, "name": str(category)} for category in (*CATEGORIES, *OTHERS)]
        file.write(f'], "images": {json.dumps(images)}, "categories": {json.dumps(listed)}}}')
    return path
