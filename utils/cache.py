"""Results that take long to compute: one process computes them, a folder outside the dataset folders stores them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from utils.distributed import print_main
from utils.errors import UserError, writing
from utils.run.files import write_atomically

FIX = "set DEEPLAB_CACHE to another folder"


class LabeledDataset(Protocol):
    """What results of labels need of `dataloaders.SegmentationDataset`, which utils/ does not import."""

    name: str

    def __len__(self) -> int: ...
    def label_digest(self, index: int) -> bytes: ...


def cache_folder() -> Path:
    """DEEPLAB_CACHE, else `deeplab` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DEEPLAB_CACHE") or Path(home) / "deeplab")


def cached(name: str, compute: Callable[[], object]) -> object:
    """The JSON value stored under `name`. If there is none yet, the result of `compute`, which is then stored.

    `name` must contain a digest of all that the value depends on. Other processes wait for the result of the first.
    If the folder cannot be written, a note says so and every call computes.
    """
    path = cache_folder() / f"{name}.json"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, fix=FIX))
        except UserError as error:
            print_note(error)
            return json.loads(json.dumps(compute()))
        if path.is_file():
            return json.loads(path.read_text())
        text = json.dumps(compute())
        try:
            with writing(path, FIX):
                write_atomically(path, text.encode())
        except UserError as error:
            print_note(error)
        return json.loads(text)


def cached_of_labels(title: str, dataset: LabeledDataset, rule: str, compute: Callable[[], object]) -> object:
    """As `cached`, of a result of the content of all labels and of `rule`: what else it depends on."""
    digest = hashlib.sha256(rule.encode())
    for index in range(len(dataset)):
        digest.update(dataset.label_digest(index))
    return cached(f"{title}-{dataset.name}-{digest.hexdigest()[:32]}", compute)


def print_note(error: UserError) -> None:
    print_main(f"note: {error}; until then the result is computed at every start")


@contextlib.contextmanager
def locked(path: Path, *, fix: str, waiting: str = "") -> Iterator[None]:
    """Only one process at a time enters the block. The lock file is beside `path`; its folder is created.

    Prints `waiting` if another process is in the block. Raises UserError with `fix` if that folder cannot be written.
    """
    with writing(path.parent, fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting:
                print_main(waiting)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
