"""A row of scores for every image."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.distributed import all_gather
from utils.scoring.loop import Observer
from utils.scoring.metrics import ConfusionMatrix, write_csv

COLUMNS = ("id", "miou", "accuracy", "pixels")


class PerImage(Observer):
    """`rows`: id -> (mIoU over the classes in the image's truth or prediction, pixel accuracy, labeled pixels)."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.rows: dict[str, tuple] = {}

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None) -> tuple[str, tuple]:
        confusion = ConfusionMatrix(self.num_classes)
        confusion.update(prediction, label)
        scores = confusion.scores(range(self.num_classes))
        return key, (scores["miou"], scores["pixel_accuracy"], int(confusion.counts.sum()))

    def add(self, measured: tuple[str, tuple]) -> None:
        key, self.rows[key] = measured

    def all_reduce(self, device: torch.device) -> None:
        self.rows = {key: row for rows in all_gather(self.rows) for key, row in rows.items()}

    def write(self, path: Path, ids: Sequence[str]) -> None:
        """Write CSV in the order of `ids`; the scores of an image without labeled pixels stay empty."""
        write_csv(path, COLUMNS, ([key, *self.rows[key]] for key in ids))  # csv writes None as an empty field
