"""Every image with its label, examined in parallel: for the checker, and before a run begins."""

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

FEW = 200  # images that are read sooner than workers start


class ScanResult(NamedTuple):
    """Of one pair: what is wrong, pixels by label value, (width, height); None for what cannot be read."""

    problems: list[UserError]
    counts: list[int] | None
    size: tuple[int, int] | None


class Pairs(Dataset):
    """The result of `SegmentationDataset.load_and_check`; with `headers_only` only the header of an image is read."""

    def __init__(self, images: SegmentationDataset, *, headers_only: bool):
        self.images, self.headers_only = images, headers_only

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> ScanResult:
        pair = self.images.load_and_check(index, open_header if self.headers_only else open_image)
        if self.headers_only and pair.problems:  # the whole image decides: a PNG's turn may stand behind its pixels
            pair = self.images.load_and_check(index)
        counts = pair.label and pair.label.histogram()[:256]
        return ScanResult(pair.problems, counts, pair.image and pair.image.size)


def scan(title: str, images: SegmentationDataset, *, workers: int, headers_only: bool = False) -> Iterator[ScanResult]:
    """What is found of each pair, in their order."""
    loader = DataLoader(
        Pairs(images, headers_only=headers_only),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=init_worker,
        collate_fn=unchanged,
        generator=torch.Generator(),  # the global one gives a run its weights, whether a survey comes first or not
    )
    with progress(title, 0, len(images), iterable=loader, unit="image") as bar:
        yield from bar


def unchanged(found: ScanResult) -> ScanResult:
    return found


def check_labels(images: SegmentationDataset, *, workers: int, skip_broken: bool) -> None:
    """Raise UserError for a fault that the labels, or the images' headers, would show only as training reads them.

    Reads all labels once: for the same files, by size and time, success is remembered. With `skip_broken` what cannot
    be decoded is no fault. The first process looks, and all raise.
    """
    if not images.has_label_files:
        return
    if fault := broadcast(find_problem(images, workers, skip_broken) if is_main_process() else None):
        raise UserError(fault)


def find_problem(images: SegmentationDataset, workers: int, skip_broken: bool) -> str | None:
    def look() -> int:
        workers_worth_it = workers if len(images) >= FEW else 0
        pairs = scan("checking labels (once)", images, workers=workers_worth_it, headers_only=True)
        faults = [problem.line() for found in pairs for problem in stopping(found.problems, skip_broken)]
        raise_first(faults)
        return len(images)

    try:
        cached(f"checked-{images.name}-{digest_of_files(images, skip_broken)}", look)
    except UserError as error:
        return error.line()
    return None


def stopping(problems: list[UserError], skip_broken: bool) -> list[UserError]:
    """Those of a pair that end a run, which judges by the first."""
    return [] if skip_broken and problems and isinstance(problems[0], BrokenImage) else problems


def digest_of_files(images: SegmentationDataset, skip_broken: bool) -> str:
    """Changes with any image's or label's path, size or time, and with what is asked of them."""
    digest = hashlib.sha256(f"{len(images.classes)} classes, {skip_broken}".encode())
    for index in range(len(images)):
        for path in (images.image_path(index), images.label_path(index)):
            digest.update(f"\n{path} {size_and_time(path)}".encode())
    return digest.hexdigest()[:32]


def size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # is named when it is read
        return None
    return status.st_size, status.st_mtime_ns
