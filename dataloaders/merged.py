"""Several datasets with label files as one."""

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
        sources: dict[str, tuple[SegmentationDataset, int]] = {}
        for dataset in datasets:
            for index, image_id in enumerate(dataset.ids):
                if image_id not in excluded:
                    sources.setdefault(image_id, (dataset, index))
        self.ids, self.sources = list(sources), list(sources.values())
        self.image_files = [dataset.image_path(index) for dataset, index in self.sources]
        self.label_files = [dataset.label_path(index) for dataset, index in self.sources]

    def open_label(self, index: int) -> Image.Image:
        dataset, index = self.sources[index]
        return dataset.open_label(index)

    def load_and_check(self, index: int, opener: Opener = open_image) -> Pair:
        dataset, index = self.sources[index]
        return dataset.load_and_check(index, opener)
