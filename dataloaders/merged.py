"""Several datasets with label files as one."""

import numpy as np
from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.pairs import Opener, Pair
from utils.images import open_image


class MergedDataset(SegmentationDataset):
    """The images of all `datasets` whose ids are not in `excluded`. Of an id in several datasets, the first one counts.

    Classes and palette are those of the first dataset.
    """

    def __init__(self, datasets: list[SegmentationDataset], *, excluded: set[str]):
        self.name = "+".join(dataset.name for dataset in datasets)
        self.classes, self.palette = datasets[0].classes, datasets[0].palette
        sources: dict[str, tuple[int, int]] = {}
        for number, dataset in enumerate(datasets):
            for index, image_id in enumerate(dataset.ids):
                if image_id not in excluded:
                    sources.setdefault(image_id, (number, index))
        self.ids, self.datasets = sources, datasets
        self.sources = np.array([*sources.values()], np.int32).reshape(-1, 2)  # (number of the dataset, its index)
        places = [self.source(index) for index in range(len(self))]
        self.image_files = [dataset.image_path(index) for dataset, index in places]
        self.label_files = [dataset.label_path(index) for dataset, index in places]

    def source(self, index: int) -> tuple[SegmentationDataset, int]:
        number, place = self.sources[index].tolist()
        return self.datasets[number], place

    def open_label(self, index: int) -> Image.Image:
        dataset, index = self.source(index)
        return dataset.open_label(index)

    def load_and_check(self, index: int, opener: Opener = open_image) -> Pair:
        dataset, index = self.source(index)
        return dataset.load_and_check(index, opener)
