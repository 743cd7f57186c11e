"""Reads all images and labels in parallel: for `python -m dataloaders.check`, and once before training."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import raise_first
from dataloaders.loaders import init_worker
from utils.cache import cached
from utils.distributed import broadcast, is_main_process
from utils.errors import BrokenImage, UserError
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


def check_labels(dataset: SegmentationDataset, *, workers: int, skip_broken: bool) -> None:
    """Raise UserError for the first problem that labels and image headers show, before training starts.

    Reads all labels. Success is cached by path, size and time of the files. With `skip_broken`, files that cannot be
    decoded are no problem. The first process reads; every process raises. Datasets without label files are not read.
    """
    if not dataset.has_label_files:
        return
    problem = find_problem(dataset, workers, skip_broken) if is_main_process() else None
    if problem := broadcast(problem):
        raise UserError(problem)


def find_problem(dataset: SegmentationDataset, workers: int, skip_broken: bool) -> str | None:
    """One line with the first problem and the number of the others; None if there are none."""

    def check_all() -> int:
        num_workers = workers if len(dataset) >= MIN_IMAGES_FOR_WORKERS else 0
        results = scan("checking labels (once)", dataset, workers=num_workers, headers_only=True)
        raise_first([problem.line() for result in results for problem in fatal_problems(result, skip_broken)])
        return len(dataset)

    try:
        cached(f"checked-{dataset.name}-{digest_of_files(dataset, skip_broken)}", check_all)
    except UserError as error:
        return error.line()
    return None


def fatal_problems(result: ScanResult, skip_broken: bool) -> list[UserError]:
    """Those that stop a run. With `skip_broken`, a run skips a pair whose first problem is a BrokenImage."""
    is_skipped = skip_broken and result.problems and isinstance(result.problems[0], BrokenImage)
    return [] if is_skipped else result.problems


def digest_of_files(dataset: SegmentationDataset, skip_broken: bool) -> str:
    """Changes with the path, size or time of any image or label, the number of classes and `skip_broken`."""
    digest = hashlib.sha256(f"{len(dataset.classes)} classes, {skip_broken}".encode())
    for index in range(len(dataset)):
        for path in (dataset.image_path(index), dataset.label_path(index)):
            digest.update(f"\n{path} {size_and_time(path)}".encode())
    return digest.hexdigest()[:32]


def size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # reported when the file is read
        return None
    return status.st_size, status.st_mtime_ns
