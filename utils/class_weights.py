"""Class weights from the raw labels of a training set."""

import math
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from utils.cache import LabeledDataset, cached_of_labels
from utils.errors import BrokenImage, UserError
from utils.progress import progress


class CountedDataset(LabeledDataset, Protocol):
    """What the weights need of `dataloaders.SegmentationDataset`."""

    classes: Sequence[str]

    def open_label(self, index: int) -> Image.Image: ...


def class_weights(dataset: CountedDataset, *, skip_broken: bool = False) -> list[float]:
    """Weight of each class: 1 / ln(1.02 + its share of the labeled pixels) (ENet, arXiv 1606.02147, section 5.2).

    The pixels of the raw labels, without crop and padding, are counted once and cached by the content of the labels.
    A label that cannot be decoded raises BrokenImage; with `skip_broken` it is left out. Raises UserError if all
    labels are 255 throughout.
    """
    rule = f"{len(dataset.classes)} classes"
    counts = cached_of_labels("class-pixels", dataset, rule, lambda: count_pixels(dataset, skip_broken))
    total = sum(counts)
    if not total:
        raise UserError(f"{dataset.name}: no training label has a labeled pixel: correct the labels")
    return [1 / math.log(1.02 + count / total) for count in counts]


def count_pixels(dataset: CountedDataset, skip_broken: bool) -> list[int]:
    """Number of pixels of each class in all labels."""
    counts, indices = [0] * len(dataset.classes), range(len(dataset))
    with progress("counting pixels of each class (once)", 0, len(dataset), iterable=indices, unit="label") as bar:
        for index in bar:
            try:
                histogram = dataset.open_label(index).histogram()
            except BrokenImage:
                if not skip_broken:
                    raise
                continue
            counts = [count + more for count, more in zip(counts, histogram, strict=False)]
    return counts
