"""Decoded images and labels kept as uint8, so that each file is decoded once. The bits of a run stay the same.

`open_cache(place, datasets)` gives the datasets that loaders read from: the first one that reads a sample adds it, and
data workers, processes and later runs read it from there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import get_worker_info

from dataloaders.base import Pixels, SegmentationDataset
from dataloaders.cache.folder_store import FolderStore
from dataloaders.cache.keys import Key, sample_key
from dataloaders.cache.memory_store import MemoryStore
from dataloaders.cache.space import Store, require_space
from utils.distributed import local_rank, print_main, share_on_machine
from utils.errors import UserError


class CachedDataset:
    """What loaders use of `dataset`. `read_pixels` decodes only what the store does not have."""

    def __init__(self, dataset: SegmentationDataset, store: Store):
        self.dataset, self.store, self.is_full = dataset, store, False
        self.name, self.ids, self.label_digest = dataset.name, dataset.ids, dataset.label_digest

    def __len__(self) -> int:
        return len(self.dataset)

    def read_pixels(self, index: int) -> tuple[Pixels, Pixels]:
        """As that of the dataset, or from the store: (image uint8 [H, W, 3], label uint8 [H, W]), views of its pages.

        Raises the errors of the dataset; such samples are not stored.
        """
        key = sample_key(self.dataset, index)
        if key and (arrays := self.store.find(key)):
            return arrays
        image, label = self.dataset.read_pixels(index)
        if not self.is_full and key and key == sample_key(self.dataset, index):  # no file has changed meanwhile
            self.add(key, np.asarray(image), np.asarray(label))
        return image, label

    def add(self, key: Key, image: np.ndarray, label: np.ndarray) -> None:
        """A store that cannot take it gets no more from this process."""
        try:
            self.store.add(key, image, label)
        except OSError as error:
            self.is_full = True
            worker = get_worker_info()
            if worker is None or worker.id == 0:  # one line for all workers, which fail alike
                reason = f"{self.store.place} takes no more samples ({error.strerror or error})"
                print_main(f"note: {reason}: those that are not there are decoded each time")


def open_cache(place: str, datasets: Sequence[SegmentationDataset]) -> list[SegmentationDataset | CachedDataset]:
    """The `datasets`, with decoded samples kept in `place`: "off", "ram" or a folder.

    Prints how much space they need and how much there is. Raises UserError if it does not suffice, or for a folder that
    cannot be written.
    """
    if place == "off":
        return list(datasets)
    store = open_store(MemoryStore if place == "ram" else FolderStore, place, datasets)
    return [CachedDataset(dataset, store) for dataset in datasets]


def open_store(kind: type[Store], place: str, datasets: Sequence[SegmentationDataset]) -> Store:
    """The first process of a machine makes the store and looks for space; the others join it, or raise its error."""
    store, answer = None, {}
    if local_rank() == 0:
        try:
            store = kind.create(Path(place))
            require_space(store, datasets)
            answer = {"address": store.address}
        except UserError as error:
            answer = {"error": error.line()}
    answer = share_on_machine(answer)
    if "error" in answer:
        raise UserError(answer["error"])
    return store or kind.join(answer["address"])
