"""Reads all images and labels in parallel: for `python -m dataloaders.check`, and once before training."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders.base import SegmentationDataset
from dataloaders.loaders import init_worker
from utils.errors import UserError
from utils.images import open_header, open_image
from utils.progress import progress

MIN_IMAGES_FOR_WORKERS = 200  # the process itself reads fewer in less time than workers take to start


class ScanResult(NamedTuple):
    """Problems of a pair, pixels by label value (256 counts), (width, height); None if image or label is unreadable."""

    problems: list[UserError]
    counts: list[int] | None
    size: tuple[int, int] | None


class ScanDataset(Dataset):
    """A ScanResult of each pair. With `headers_only` the pixels of the images are not decoded."""

    def __init__(self, dataset: SegmentationDataset, *, headers_only: bool):
        self.dataset, self.headers_only = dataset, headers_only

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> ScanResult:
        pair = self.dataset.load_and_check(index, open_header if self.headers_only else open_image)
        if self.headers_only and pair.problems:  # perhaps none: a PNG may store its orientation after the pixels
            pair = self.dataset.load_and_check(index)
        counts = pair.label and pair.label.histogram()[:256]
        return ScanResult(pair.problems, counts, pair.image and pair.image.size)


def scan(title: str, dataset: SegmentationDataset, *, workers: int, headers_only: bool = False) -> Iterator[ScanResult]:
    """The result of each pair, in the order of the dataset, under a progress bar with `title`."""
    loader = DataLoader(
        ScanDataset(dataset, headers_only=headers_only),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=init_worker,
        collate_fn=unchanged,  # the default visits each of the 256 counts
        generator=torch.Generator(),  # a draw from the global one would change the initial weights
    )
    with progress(title, 0, len(dataset), iterable=loader, unit="image") as bar:
        yield from bar


def unchanged(result: ScanResult) -> ScanResult:
    return result
