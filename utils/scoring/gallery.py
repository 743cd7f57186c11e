"""The images of a validation that people look at: some spread over the set, and the worst."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.distributed import all_gather, gather_flat
from utils.scoring.per_image import PerImage
from utils.scoring.visualize import Example

MAX_WIDTH, MAX_HEIGHT = 480, 640  # pixels of an image that is kept
NUM_EXAMPLES, NUM_WORST, NUM_SHEET_ROWS = 8, 4, 4  # images to show


def evenly_spaced(items: Sequence, count: int) -> list:
    """`count` of `items`, or all: neighbors in a list of images often show the same scene."""
    count = min(count, len(items))
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


class Gallery(PerImage):
    """The scores of every image, and small copies of those with the ids `wanted` (`spread`) and of the `worst`.

    `worst`: at most NUM_WORST, the lowest mIoU first; the same for every number of processes.
    """

    def __init__(self, num_classes: int, wanted: Sequence[str] = ()):
        super().__init__(num_classes)
        self.wanted = list(wanted)
        self.copies: dict[str, Example] = {}  # of the wanted images, and of the worst ones so far
        self.worst_ids: list[str] = []

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor) -> tuple[str, tuple, Example | None]:
        _, row = super().measure(key, prediction, label, image)
        example = None
        if key in self.wanted or self.is_among_worst(key, row[0]):
            example = shrink(Example(image.numpy(), label.numpy(), prediction.numpy(), key=key, miou=row[0]))
        return key, row, example

    def add(self, measured: tuple[str, tuple, Example | None]) -> None:
        key, self.rows[key], example = measured
        if example is None:
            return
        self.copies[key] = example
        if self.is_among_worst(key, example.miou):
            self.worst_ids = self.find_worst([*self.worst_ids, key])
        self.copies = {name: self.copies[name] for name in self.copies if name in (*self.wanted, *self.worst_ids)}

    def is_among_worst(self, key: str, miou: float | None) -> bool:
        """Also called by the threads that measure: an image that is not among the worst so far never will be."""
        worst = self.worst_ids
        return miou is not None and (len(worst) < NUM_WORST or (miou, key) < (self.rows[worst[-1]][0], worst[-1]))

    def find_worst(self, keys: Sequence[str]) -> list[str]:
        """The NUM_WORST of `keys` with the lowest mIoU; of equal ones the first by id."""
        return sorted(keys, key=lambda key: (self.rows[key][0], key))[:NUM_WORST]

    def all_reduce(self, device: torch.device) -> None:
        super().all_reduce(device)
        self.worst_ids = self.find_worst(gather_flat(self.worst_ids))
        shown = {key: copy for key, copy in self.copies.items() if key in (*self.wanted, *self.worst_ids)}
        self.copies = {key: copy for part in all_gather(shown) for key, copy in part.items()}

    @property
    def spread(self) -> list[Example]:
        return [self.copies[key] for key in self.wanted if key in self.copies]

    @property
    def worst(self) -> list[Example]:
        return [self.copies[key] for key in self.worst_ids]


def shrink(example: Example) -> Example:
    """A copy of at most MAX_WIDTH x MAX_HEIGHT pixels; class numbers are not mixed."""
    height, width = example.prediction.shape
    factor = min(1, MAX_WIDTH / width, MAX_HEIGHT / height)
    size = (max(1, round(factor * width)), max(1, round(factor * height)))

    def resize(pixels: np.ndarray, resample: Image.Resampling) -> np.ndarray:
        if factor == 1:
            return pixels.copy()  # a view would keep the whole batch in memory
        return np.asarray(Image.fromarray(pixels).resize(size, resample))

    image = resize(example.image.transpose(1, 2, 0), Image.Resampling.BILINEAR).transpose(2, 0, 1)
    maps = {name: resize(getattr(example, name), Image.Resampling.NEAREST) for name in ("label", "prediction")}
    return example._replace(image=image, **maps)
