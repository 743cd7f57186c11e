"""Every picture with its label, examined in parallel: for the checker, and before a run begins."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders.base import PictureSet
from dataloaders.layout import refuse
from dataloaders.pairs import open_header, open_picture
from dataloaders.samples import init_worker
from errors import BrokenPicture, UserError
from utils.cache import cached
from utils.distributed import is_main_process, share
from utils.progress import progress

FEW = 200  # pictures that are read sooner than workers start


class Found(NamedTuple):
    """Of one pair: what is wrong, pixels by label value, (width, height); None for what cannot be read."""

    problems: list[UserError]
    counts: list[int] | None
    size: tuple[int, int] | None


class Pairs(Dataset):
    """What `PictureSet.examine` finds; with `headers_only` no more of a picture is read than tells something wrong."""

    def __init__(self, pictures: PictureSet, *, headers_only: bool):
        self.pictures, self.headers_only = pictures, headers_only

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Found:
        pair = self.pictures.examine(index, open_header if self.headers_only else open_picture)
        if self.headers_only and pair.problems:  # the whole picture decides: a PNG's turn may stand behind its pixels
            pair = self.pictures.examine(index)
        counts = pair.label and pair.label.histogram()[:256]
        return Found(pair.problems, counts, pair.picture and pair.picture.size)


def survey(title: str, pictures: PictureSet, *, workers: int, headers_only: bool = False) -> Iterator[Found]:
    """What is found of each pair, in their order."""
    loader = DataLoader(
        Pairs(pictures, headers_only=headers_only),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=init_worker,
        collate_fn=unchanged,
        generator=torch.Generator(),  # the global one gives a run its weights, whether a survey comes first or not
    )
    with progress(title, 0, len(pictures), iterable=loader, unit="picture") as bar:
        yield from bar


def unchanged(found: Found) -> Found:
    return found


def check_labels(pictures: PictureSet, *, workers: int, skip_broken: bool) -> None:
    """Raise UserError for a fault that the labels, or the pictures' headers, would show only as training reads them.

    Reads all labels once: for the same files, by size and time, success is remembered. With `skip_broken` what cannot
    be decoded is no fault. The first process looks, and all raise.
    """
    if not pictures.has_label_files:
        return
    if fault := share(find_fault(pictures, workers, skip_broken) if is_main_process() else None):
        raise UserError(fault)


def find_fault(pictures: PictureSet, workers: int, skip_broken: bool) -> str | None:
    def look() -> int:
        workers_worth_it = workers if len(pictures) >= FEW else 0
        pairs = survey("checking labels (once)", pictures, workers=workers_worth_it, headers_only=True)
        faults = [problem.line() for found in pairs for problem in stopping(found.problems, skip_broken)]
        refuse(faults)
        return len(pictures)

    try:
        cached(f"checked-{pictures.name}-{digest_of_files(pictures, skip_broken)}", look)
    except UserError as error:
        return error.line()
    return None


def stopping(problems: list[UserError], skip_broken: bool) -> list[UserError]:
    """Those of a pair that end a run, which judges by the first."""
    return [] if skip_broken and problems and isinstance(problems[0], BrokenPicture) else problems


def digest_of_files(pictures: PictureSet, skip_broken: bool) -> str:
    """Changes with any picture's or label's path, size or time, and with what is asked of them."""
    digest = hashlib.sha256(f"{len(pictures.classes)} classes, {skip_broken}".encode())
    for index in range(len(pictures)):
        for path in (pictures.picture_path(index), pictures.label_path(index)):
            digest.update(f"\n{path} {size_and_time(path)}".encode())
    return digest.hexdigest()[:32]


def size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # is named when it is read
        return None
    return status.st_size, status.st_mtime_ns
