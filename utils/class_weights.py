"""Class weights from the raw labels of a training set."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from utils.cache import cached
from utils.errors import BrokenImage
from utils.progress import progress


class Labels(Protocol):
    classes: Sequence[str]
    name: str

    def __len__(self) -> int: ...
    def open_label(self, index: int) -> Image.Image: ...
    def label_digest(self, index: int) -> bytes: ...


def class_weights(labels: Labels, *, skip_broken: bool = False) -> list[float]:
    """1 / ln(1.02 + the class's share of the labeled pixels) a class (ENet, arXiv 1606.02147, section 5.2).

    Counted once for a given content of the labels: no crop, no padding, no dependence on any other option.
    `skip_broken` leaves out labels that cannot be decoded, which else raise BrokenImage.
    """
    digest = hashlib.sha256(f"{len(labels.classes)} classes".encode())
    for index in range(len(labels)):
        digest.update(labels.label_digest(index))
    counts = cached(f"class-pixels-{labels.name}-{digest.hexdigest()[:32]}", lambda: count_pixels(labels, skip_broken))
    total = sum(counts)
    return [1 / math.log(1.02 + count / total) for count in counts]


def count_pixels(labels: Labels, skip_broken: bool) -> list[int]:
    """Labeled pixels of each class over the whole set."""
    counts = [0] * len(labels.classes)
    with progress("counting pixels a class (once)", 0, len(labels), iterable=range(len(labels)), unit="label") as bar:
        for index in bar:
            try:
                histogram = labels.open_label(index).histogram()
            except BrokenImage:
                if not skip_broken:
                    raise
                continue
            counts = [count + more for count, more in zip(counts, histogram, strict=False)]
    return counts
