"""Samples and loaders: `{"image": uint8 [3, H, W], "label": uint8 [H, W], "id": str}`, in batches of uint8."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from dataloaders.base import IGNORE_INDEX, PictureSet
from dataloaders.sampler import StepSampler
from dataloaders.transforms import RandomScaleCrop, whole_picture
from errors import BrokenPicture, UserError
from utils.broken import SEPARATOR
from utils.preemption import leave_signals_to_parent

MAX_BROKEN = 100  # in a row: then it is not this or that file


class TrainSamples(Dataset):
    """A sample's look depends on `(seed, epoch, index)` alone; its key is `(epoch, index)`.

    With `skip_broken` another picture, drawn from these three alone too, stands in for one that cannot be decoded, and
    the sample's "broken" names the files that were left out.
    """

    def __init__(self, pictures: PictureSet, transform: RandomScaleCrop, *, seed: int, skip_broken: bool = False):
        self.pictures, self.transform, self.seed, self.skip_broken = pictures, transform, seed, skip_broken

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        random = np.random.default_rng((self.seed, epoch, index))
        if not self.skip_broken:
            image, label = self.transform(*self.pictures.read(index), random)
            return {"image": image, "label": label, "id": self.pictures.ids[index]}
        index, pair, broken = self.read_or_replace(epoch, index)
        image, label = self.transform(*pair, random)
        return {"image": image, "label": label, "id": self.pictures.ids[index], "broken": SEPARATOR.join(broken)}

    def read_or_replace(self, epoch: int, index: int) -> tuple[int, tuple, list[str]]:
        """(index of the picture taken, it and its label, files left out)."""
        choice, broken = np.random.default_rng((self.seed, epoch, index, 1)), []
        for _ in range(MAX_BROKEN):
            try:
                return index, self.pictures.read(index), broken
            except BrokenPicture as error:
                broken.append(error.path)
                index = int(choice.integers(len(self.pictures)))
        raise UserError(f"{MAX_BROKEN} pictures in a row cannot be decoded, such as {broken[0]}: look at the data")


class WholeSamples(Dataset):
    """Every picture at its own size, or as `transform` makes it and its label; the key is its index.

    With `skip_broken` a picture that cannot be decoded comes as a small one of which nothing is labelled, and the
    sample's "broken" names its file.
    """

    def __init__(self, pictures: PictureSet, transform: Callable = whole_picture, *, skip_broken: bool = False):
        self.pictures, self.transform, self.skip_broken = pictures, transform, skip_broken

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict:
        sample = {"id": self.pictures.ids[index]} | ({"broken": ""} if self.skip_broken else {})
        try:
            image, label = self.transform(*self.pictures.read(index))
        except BrokenPicture as error:
            if not self.skip_broken:
                raise
            image, label = torch.zeros(3, 33, 33, dtype=torch.uint8), torch.full((33, 33), IGNORE_INDEX).byte()
            sample["broken"] = error.path
        return {"image": image, "label": label} | sample


def train_loader(samples: TrainSamples, sampler: StepSampler, *, workers: int, pin_memory: bool) -> DataLoader:
    return DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=init_worker,
    )


def whole_loader(
    pictures: PictureSet,
    *,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    world: int = 1,
    transform: Callable = whole_picture,
    skip_broken: bool = False,
) -> DataLoader:
    """One picture a batch, since sizes differ. Each process gets every `world`-th one: none twice, none padded in."""
    samples = WholeSamples(pictures, transform, skip_broken=skip_broken)
    mine = Subset(samples, range(rank, len(pictures), world))
    return DataLoader(mine, num_workers=workers, pin_memory=pin_memory, worker_init_fn=init_worker)


def init_worker(_worker: int) -> None:
    leave_signals_to_parent()
    torch.set_num_threads(1)
