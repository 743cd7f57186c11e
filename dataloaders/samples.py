"""Samples and loaders: `{"image": uint8 [3, H, W], "label": uint8 [H, W], "id": str}`, in batches of uint8."""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from dataloaders.base import PictureSet
from dataloaders.sampler import StepSampler
from dataloaders.transforms import RandomScaleCrop, whole_picture
from utils.preemption import leave_signals_to_parent


class TrainSamples(Dataset):
    """A sample's look depends on `(seed, epoch, index)` alone; its key is `(epoch, index)`."""

    def __init__(self, pictures: PictureSet, transform: RandomScaleCrop, *, seed: int):
        self.pictures, self.transform, self.seed = pictures, transform, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        random = np.random.default_rng((self.seed, epoch, index))
        image, label = self.transform(*self.pictures.read(index), random)
        return {"image": image, "label": label, "id": self.pictures.ids[index]}


class WholeSamples(Dataset):
    """Every picture at its own size; the key is its index."""

    def __init__(self, pictures: PictureSet):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict:
        image, label = whole_picture(*self.pictures.read(index))
        return {"image": image, "label": label, "id": self.pictures.ids[index]}


def train_loader(samples: TrainSamples, sampler: StepSampler, *, workers: int, pin_memory: bool) -> DataLoader:
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=init_worker,
    )


def whole_loader(pictures: PictureSet, *, workers: int, pin_memory: bool, rank: int = 0, world: int = 1) -> DataLoader:
    """One picture a batch, since sizes differ. Each process gets every `world`-th one: none twice, none padded in."""
    mine = Subset(WholeSamples(pictures), range(rank, len(pictures), world))
    return DataLoader(mine, num_workers=workers, pin_memory=pin_memory, worker_init_fn=init_worker)


def init_worker(_worker: int) -> None:
    leave_signals_to_parent()
    torch.set_num_threads(1)
