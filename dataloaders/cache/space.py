"""The space that the samples of a dataset take in the cache, before they are decoded."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from dataloaders.base import SegmentationDataset
from dataloaders.cache.entry import Arrays, entry_bytes
from dataloaders.cache.keys import Key, sample_key
from utils.distributed import print_main
from utils.errors import UserError
from utils.images import open_header

NUM_PROBES = 500  # images of each dataset whose headers are read: 0.1 s, and a few percent of error
NUM_READS = 5  # if there are no files: then the images are drawn
PAGE = 4096  # bytes; an entry begins at a new one


class Store(Protocol):
    """Entries that any number of processes find and add at the same time, and may be killed in."""

    place: str  # for messages
    address: str  # what `join` takes in another process of this machine
    reserved_bytes: int  # that the cache leaves free

    @classmethod
    def create(cls, place: Path) -> "Store": ...
    @classmethod
    def join(cls, address: str) -> "Store": ...
    def free_bytes(self) -> int: ...
    def find(self, key: Key) -> Arrays | None: ...
    def add(self, key: Key, image: np.ndarray, label: np.ndarray) -> None: ...


def require_space(store: Store, datasets: Sequence[SegmentationDataset]) -> None:
    """Print the space that the samples take, and how much there is. Raises UserError if it does not suffice."""
    total, stored = np.sum([estimate(store, dataset) for dataset in datasets], axis=0)
    free, name = store.free_bytes(), datasets[0].name
    there = f", of which {size(stored)} are there" if stored else ""
    needs = f"{name} needs about {size(total)}{there}; {store.place} has {size(free)} free"
    if total - stored > max(0, free - store.reserved_bytes):
        raise UserError(
            f"`cache`: {needs}, and {size(store.reserved_bytes)} of it must stay free: give another folder, or off"
        )
    print_main(f"cache: {needs}")


def estimate(store: Store, dataset: SegmentationDataset) -> np.ndarray:
    """(bytes of all samples, bytes of those in the store), from samples that are spread evenly over the dataset."""
    num_probes = min(len(dataset), NUM_PROBES if dataset.image_path(0).is_file() else NUM_READS)
    indices = np.linspace(0, len(dataset) - 1, num_probes).round().astype(int)
    with ThreadPoolExecutor(8) as threads:  # they wait for the disk
        sizes = list(threads.map(lambda index: probe(store, dataset, int(index)), indices))
    return len(dataset) * np.mean(sizes, axis=0)


def probe(store: Store, dataset: SegmentationDataset, index: int) -> tuple[int, int]:
    """(bytes of a sample, and again if it is in the store, else 0)."""
    width, height = image_size(dataset, index)
    num_bytes = -(-entry_bytes(height, width) // PAGE) * PAGE
    key = sample_key(dataset, index)
    return num_bytes, num_bytes if key and store.find(key) else 0


def image_size(dataset: SegmentationDataset, index: int) -> tuple[int, int]:
    """(width, height); (0, 0) for an image that cannot be read, which is reported when its turn comes."""
    path = dataset.image_path(index)
    try:
        return (open_header(path)[0] if path.is_file() else dataset.read(index)[0]).size
    except UserError:
        return 0, 0


def size(num_bytes: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if num_bytes >= unit / 10:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes / 1e3:.0f} kB"
