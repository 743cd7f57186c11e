"""Samples `{"image": uint8 [3, H, W], "label": uint8 [H, W], "id": str}` for training and for scoring."""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import Dataset

from dataloaders.base import IGNORE_INDEX, Pixels, SegmentationDataset
from dataloaders.class_centers import ClassCenters
from dataloaders.transforms import Crop, RandomScaleCrop, whole_image
from utils.errors import BrokenImage, UserError
from utils.images import size_of
from utils.run.broken import SEPARATOR

MAX_BROKEN = 100  # in a row: the data as a whole cannot be read


class TrainDataset(Dataset):
    """Random crops. A sample depends on `(seed, epoch, index)` alone; its key is `(epoch, index)`.

    With `centers`, indices from the number of images are class-uniform samples: crops around a class.
    With `skip_broken`, another image, chosen by the same three numbers, replaces one that cannot be decoded, and
    the sample's "broken" has the paths of the files that were skipped.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        transform: RandomScaleCrop,
        *,
        seed: int,
        skip_broken: bool = False,
        centers: ClassCenters | None = None,
    ):
        self.dataset, self.transform, self.seed, self.skip_broken = dataset, transform, seed, skip_broken
        self.centers = centers

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        return self.load(key)[0]

    def load(self, key: tuple[int, int]) -> tuple[dict, tuple[int, int]]:
        """The sample of a key, and the (width, height) of the image that it was cropped from."""
        index, center = self.locate(key)
        more = {}
        if self.skip_broken:
            index, pair, broken = self.read_or_replace(key[0], index)
            more["broken"] = SEPARATOR.join(broken)
            center = None if broken else center
        else:
            pair = self.dataset.read_pixels(index)
        image, label = self.transform(*pair, self.rng(key), center)
        return {"image": image, "label": label, "id": self.dataset.ids[index]} | more, size_of(pair[0])

    def crop(self, key: tuple[int, int], image_size: tuple[int, int]) -> Crop:
        """How the sample of a key was cropped from its image of `image_size` (width, height)."""
        return self.transform.draw(image_size, self.rng(key), self.locate(key)[1])

    def locate(self, key: tuple[int, int]) -> tuple[int, tuple[int, int] | None]:
        """(index of the image, (row, column) of the crop's center in it, or None) of a key."""
        epoch, index = key
        number = index - len(self.dataset)
        if number < 0:
            return index, None
        return self.centers.pick(number, np.random.default_rng((self.seed, epoch, index, 2)))

    def rng(self, key: tuple[int, int]) -> np.random.Generator:
        """The generator of a sample: that of `np.random.default_rng((seed, epoch, index))`."""
        numbers = (self.seed, *key)
        # NumPy makes this array out of numbers below 2**32, in three times as long as all else here takes
        return np.random.default_rng(np.array(numbers, np.uint32) if max(numbers) < 1 << 32 else numbers)

    def read_or_replace(self, epoch: int, index: int) -> tuple[int, tuple[Pixels, Pixels], list[str]]:
        """(index of the image that was read, (image, label), paths that were skipped).

        Raises UserError after MAX_BROKEN images that cannot be decoded.
        """
        rng, broken = np.random.default_rng((self.seed, epoch, index, 1)), []
        for _ in range(MAX_BROKEN):
            try:
                return index, self.dataset.read_pixels(index), broken
            except BrokenImage as error:
                broken.append(error.path)
                index = int(rng.integers(len(self.dataset)))
        raise UserError(f"{MAX_BROKEN} images in a row cannot be decoded, such as {broken[0]}: check the data")


class EvalDataset(Dataset):
    """Every image at its own size, or as `transform(image, label)` returns it. The key of a sample is its index.

    With `skip_broken`, a small image without labeled pixels replaces one that cannot be decoded, and the sample's
    "broken" has the path of its file.
    """

    def __init__(self, dataset: SegmentationDataset, transform: Callable = whole_image, *, skip_broken: bool = False):
        self.dataset, self.transform, self.skip_broken = dataset, transform, skip_broken

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        sample = {"id": self.dataset.ids[index]} | ({"broken": ""} if self.skip_broken else {})
        try:
            image, label = self.transform(*self.dataset.read_pixels(index))
        except BrokenImage as error:
            if not self.skip_broken:
                raise
            image, label = torch.zeros(3, 33, 33, dtype=torch.uint8), torch.full((33, 33), IGNORE_INDEX).byte()
            sample["broken"] = error.path
        return {"image": image, "label": label} | sample
