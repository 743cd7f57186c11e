"""Samples `{"image": uint8 [3, H, W], "label": uint8 [H, W], "id": str}` for training and for scoring."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.transforms import RandomScaleCrop, whole_image
from utils.errors import BrokenImage, UserError
from utils.run.broken import SEPARATOR

MAX_BROKEN = 100  # in a row: then not a single file is the cause


class TrainDataset(Dataset):
    """Random crops: a sample depends on `(seed, epoch, index)` alone; its key is `(epoch, index)`.

    With `skip_broken`, an image that cannot be decoded is replaced by another one, drawn from these three alone too,
    and the sample's "broken" names the files that were skipped.
    """

    def __init__(
        self, dataset: SegmentationDataset, transform: RandomScaleCrop, *, seed: int, skip_broken: bool = False
    ):
        self.dataset, self.transform, self.seed, self.skip_broken = dataset, transform, seed, skip_broken

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, index = key
        random = np.random.default_rng((self.seed, epoch, index))
        if not self.skip_broken:
            image, label = self.transform(*self.dataset.read(index), random)
            return {"image": image, "label": label, "id": self.dataset.ids[index]}
        index, pair, broken = self.read_or_replace(epoch, index)
        image, label = self.transform(*pair, random)
        return {"image": image, "label": label, "id": self.dataset.ids[index], "broken": SEPARATOR.join(broken)}

    def read_or_replace(self, epoch: int, index: int) -> tuple[int, tuple, list[str]]:
        """(index of the image read, (image, label), files skipped)."""
        choice, broken = np.random.default_rng((self.seed, epoch, index, 1)), []
        for _ in range(MAX_BROKEN):
            try:
                return index, self.dataset.read(index), broken
            except BrokenImage as error:
                broken.append(error.path)
                index = int(choice.integers(len(self.dataset)))
        raise UserError(f"{MAX_BROKEN} images in a row cannot be decoded, such as {broken[0]}: check the data")


class EvalDataset(Dataset):
    """Every image at its own size, or as `transform` makes it and its label; the key is its index.

    With `skip_broken`, an image that cannot be decoded becomes a small one without labeled pixels, and the sample's
    "broken" names its file.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Callable = whole_image, *, skip_broken: bool = False):
        self.dataset, self.transform, self.skip_broken = dataset, transform, skip_broken

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        sample = {"id": self.dataset.ids[index]} | ({"broken": ""} if self.skip_broken else {})
        try:
            image, label = self.transform(*self.dataset.read(index))
        except BrokenImage as error:
            if not self.skip_broken:
                raise
            image, label = torch.zeros(3, 33, 33, dtype=torch.uint8), torch.full((33, 33), IGNORE_INDEX).byte()
            sample["broken"] = error.path
        return {"image": image, "label": label} | sample
