"""Pixels and images of each class in all labels of a split, counted in parallel, once, where the labels are checked."""

import hashlib
from pathlib import Path
from typing import NamedTuple

from dataloaders.base import IGNORE_INDEX, SegmentationDataset, size_and_time
from dataloaders.checks.layout import raise_first
from dataloaders.checks.scan import MIN_IMAGES_FOR_WORKERS, ScanResult, scan
from utils.cache import cached
from utils.distributed import broadcast, is_main_process
from utils.errors import BrokenImage, UserError


class ClassCounts(NamedTuple):
    """Of whole images, without crops: `pixels` of each class, `images` with it, pixels that are `ignored`."""

    pixels: list[int]
    images: list[int]
    ignored: int
    num_images: int


def check_labels(dataset: SegmentationDataset, *, workers: int, skip_broken: bool) -> ClassCounts | None:
    """Raise UserError for the first problem that labels and image headers show, before training starts.

    Returns what `class_counts` does. The first process reads; every process raises. Datasets without label files are
    not read: None.
    """
    if not dataset.has_label_files:
        return None
    found = counts_or_problem(dataset, workers, skip_broken) if is_main_process() else None
    found = broadcast(found)
    if isinstance(found, str):
        raise UserError(found)
    return ClassCounts(*found)


def counts_or_problem(dataset: SegmentationDataset, workers: int, skip_broken: bool) -> list | str:
    """The ClassCounts as a list, or one line with the first problem and the number of the others."""
    try:
        return list(class_counts(dataset, workers=workers, skip_broken=skip_broken))
    except UserError as error:
        return error.line()


def class_counts(dataset: SegmentationDataset, *, workers: int, skip_broken: bool = False) -> ClassCounts:
    """Reads all labels; the result is cached by path, size and time of the files.

    Raises UserError if a label or the header of an image is invalid; with `skip_broken`, files that cannot be decoded
    are no problem and are not counted.
    """
    name = f"labels-{dataset.name}-{digest_of_files(dataset, skip_broken)}"
    return ClassCounts(*cached(name, lambda: count_classes(dataset, workers, skip_broken)))


def count_classes(dataset: SegmentationDataset, workers: int, skip_broken: bool) -> ClassCounts:
    num_workers = workers if len(dataset) >= MIN_IMAGES_FOR_WORKERS else 0
    totals, images, problems = [0] * 256, [0] * 256, []
    for result in scan("checking labels (once)", dataset, workers=num_workers, headers_only=True):
        problems += [problem.line() for problem in fatal_problems(result, skip_broken)]
        for value, pixels in enumerate(result.counts or ()):
            totals[value] += pixels
            images[value] += pixels > 0
    raise_first(problems)
    num_classes = len(dataset.classes)
    return ClassCounts(totals[:num_classes], images[:num_classes], totals[IGNORE_INDEX], len(dataset))


def fatal_problems(result: ScanResult, skip_broken: bool) -> list[UserError]:
    """Those that stop a run. With `skip_broken`, a run skips a pair whose first problem is a BrokenImage."""
    is_skipped = skip_broken and result.problems and isinstance(result.problems[0], BrokenImage)
    return [] if is_skipped else result.problems


def digest_of_files(dataset: SegmentationDataset, skip_broken: bool) -> str:
    """Changes with the path, size or time of any image or label, the number of classes and `skip_broken`."""
    digest = hashlib.sha256(f"{len(dataset.classes)} classes, {skip_broken}".encode())
    for index in range(len(dataset)):
        for path in (dataset.image_path(index), dataset.label_path(index)):
            digest.update(f"\n{path} {size_and_time_if_there(path)}".encode())
    return digest.hexdigest()[:32]


def size_and_time_if_there(path: Path) -> tuple[int, int] | None:
    try:
        return size_and_time(path)
    except OSError:  # reported when the file is read
        return None
