"""Several datasets as one."""

from pathlib import Path

from PIL import Image

from dataloaders.base import SegmentationDataset
from dataloaders.checks.pairs import Opener, Pair
from utils.images import open_image


class MergedDataset(SegmentationDataset):
    """The ids of all `parts` but those in `excluded`. Where two parts have an id, the earlier one's label counts."""

    def __init__(self, parts: list[SegmentationDataset], *, excluded: set[str]):
        first = parts[0]
        self.name = "+".join(part.name for part in parts)
        self.classes, self.palette = first.classes, first.palette
        places: dict[str, tuple[SegmentationDataset, int]] = {}
        for part in parts:
            for index, key in enumerate(part.ids):
                if key not in excluded:
                    places.setdefault(key, (part, index))
        self.ids, self.places = list(places), list(places.values())

    def image_path(self, index: int) -> Path:
        part, place = self.places[index]
        return part.image_path(place)

    def label_path(self, index: int) -> Path:
        part, place = self.places[index]
        return part.label_path(place)

    def load_and_check(self, index: int, opened: Opener = open_image) -> Pair:
        part, place = self.places[index]
        return part.load_and_check(place, opened)

    def open_label(self, index: int) -> Image.Image:
        part, place = self.places[index]
        return part.open_label(place)
