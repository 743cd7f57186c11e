"""Class-uniform sampling: training crops around each class equally often.

After Zhu et al., arXiv 1812.01593, section 3.3, with the classes' centroids in tiles of the labels.
"""

import numpy as np

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from utils.cache import cached_of_labels
from utils.errors import BrokenImage, UserError
from utils.progress import progress

TILE = 512  # pixels a side: one center a class and tile, so that large images have several


class ClassCenters:
    """Where each class is: for each class, label and tile the pixel of the class nearest to its centroid there.

    The labels are read once, and the result is cached by their content. Raises UserError if no label has a class; with
    `skip_broken`, images that cannot be decoded are left out.
    """

    def __init__(self, dataset: SegmentationDataset, *, skip_broken: bool = False):
        found = cached_of_labels("class-centers", dataset, f"{TILE}", lambda: find_centers(dataset, skip_broken))
        rows = np.array(found, np.int32).reshape(-1, 4)
        if not len(rows):
            raise UserError(f"{dataset.name}: no training label has a labeled pixel: correct the labels")
        self.centers = [rows[rows[:, 0] == number, 1:] for number in np.unique(rows[:, 0])]

    def pick(self, number: int, rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
        """(index of an image, (row, column) of its pixel) of one class: of the next one for the next `number`."""
        centers = self.centers[number % len(self.centers)]
        index, row, column = map(int, centers[rng.integers(len(centers))])
        return index, (row, column)


def find_centers(dataset: SegmentationDataset, skip_broken: bool) -> list[tuple[int, int, int, int]]:
    """(class, index of the image, row, column) of each class in each tile of each label."""
    found, indices = [], range(len(dataset))
    with progress("finding the centers of each class (once)", 0, len(dataset), iterable=indices, unit="label") as bar:
        for index in bar:
            try:
                label = np.asarray(dataset.read_pixels(index)[1])
            except BrokenImage:
                if not skip_broken:
                    raise
                continue
            for top in range(0, label.shape[0], TILE):
                for left in range(0, label.shape[1], TILE):
                    tile = label[top : top + TILE, left : left + TILE]
                    found += [(each, index, top + row, left + column) for each, row, column in centers_of(tile)]
    return found


def centers_of(label: np.ndarray) -> list[tuple[int, int, int]]:
    """(class, row, column) of the pixel of each class in uint8 `label` that is nearest to the class's centroid."""
    found = []
    for number in np.flatnonzero(np.bincount(label.ravel(), minlength=256)[:IGNORE_INDEX]):
        rows, columns = np.nonzero(label == number)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        found.append((int(number), int(rows[nearest]), int(columns[nearest])))
    return found
