"""Pixels and images of each class in all labels of a split, counted in parallel and only once."""

from typing import NamedTuple

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.layout import raise_first
from dataloaders.checks.scan import MIN_IMAGES_FOR_WORKERS, digest_of_files, scan
from utils.cache import cached


class ClassCounts(NamedTuple):
    """Of whole images, without crops: `pixels` of each class, `images` with it, pixels that are `ignored`."""

    pixels: list[int]
    images: list[int]
    ignored: int
    num_images: int


def class_counts(dataset: SegmentationDataset, *, workers: int) -> ClassCounts:
    """Cached by path, size and time of the files. Raises UserError if a label is invalid."""
    name = f"classes-{dataset.name}-{digest_of_files(dataset, False)}"
    return ClassCounts(*cached(name, lambda: count_classes(dataset, workers)))


def count_classes(dataset: SegmentationDataset, workers: int) -> ClassCounts:
    num_workers = workers if len(dataset) >= MIN_IMAGES_FOR_WORKERS else 0
    totals, images, problems = [0] * 256, [0] * 256, []
    for result in scan("counting classes (once)", dataset, workers=num_workers, headers_only=True):
        problems += [problem.line() for problem in result.problems]
        for value, pixels in enumerate(result.counts or ()):
            totals[value] += pixels
            images[value] += pixels > 0
    raise_first(problems)
    num_classes = len(dataset.classes)
    return ClassCounts(totals[:num_classes], images[:num_classes], totals[IGNORE_INDEX], len(dataset))
