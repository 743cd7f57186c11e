"""Scores of a segmentation, all from one confusion matrix."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.distributed import all_reduce
from utils.losses import IGNORE_INDEX
from utils.run.files import write_atomically


class ConfusionMatrix:
    """Pixel counts, int64 [K, K]: `counts[truth, prediction]`. 255 in the label counts nowhere."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """`prediction` and `label` of one shape, whole numbers; prediction in 0..K-1, label in 0..K-1 or 255."""
        is_labeled = label != IGNORE_INDEX
        truth, predicted = label[is_labeled].long(), prediction[is_labeled].long()
        pairs = torch.bincount(truth * self.num_classes + predicted, minlength=self.num_classes**2)
        self.counts += pairs.view(self.num_classes, self.num_classes)

    def all_reduce(self) -> None:
        """Add up the counts of all processes."""
        all_reduce(self.counts)

    def scores(self, classes: Sequence[str]) -> dict:
        """`miou`, `pixel_accuracy`, `mean_class_accuracy`, `fwiou` (0..1), `per_class` {name: iou, accuracy, pixels}.

        A class that is neither in the truth nor predicted has no IoU (None) and is left out of the mean; one that is
        predicted but never true has IoU 0 and no accuracy. Nothing labeled at all gives None throughout.
        """
        counts = self.counts.cpu().double()
        correct, truth, predicted = counts.diag(), counts.sum(1), counts.sum(0)
        iou = correct / (truth + predicted - correct)  # NaN where the union is empty
        accuracy = correct / truth
        total = truth.sum()
        rows = zip(classes, iou.tolist(), accuracy.tolist(), truth.long().tolist(), strict=True)
        return {
            "miou": number(iou.nanmean()),
            "pixel_accuracy": number(correct.sum() / total),
            "mean_class_accuracy": number(accuracy.nanmean()),
            "fwiou": number((truth * iou).nansum() / total),
            "per_class": {
                name: {"iou": number(i), "accuracy": number(a), "pixels": pixels} for name, i, a, pixels in rows
            },
        }


def write_metrics(path: Path, scores: dict, **how: object) -> None:
    """The scores as JSON, after `how` they came about: at least `protocol` and `out_stride`."""
    write_atomically(path, render_metrics(scores, **how))


def render_metrics(scores: dict, **how: object) -> bytes:
    return (json.dumps(how | scores, indent=2) + "\n").encode()


def write_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """The pixel counts as CSV: a row for each true class, a column for each predicted one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth \\ prediction", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_atomically(path, text.getvalue().encode())


def number(value: Tensor | float) -> float | None:
    """A plain number, or None (JSON's null) for NaN."""
    value = float(value)
    return None if value != value else value


def table(scores: dict) -> str:
    """The scores as lines of text: a row a class, then the means."""
    width = max(map(len, [*scores["per_class"], "mean class accuracy"]))
    lines = [f"{'class':<{width}} {'IoU':>7} {'accuracy':>9} {'pixels':>13}"]
    for name, row in scores["per_class"].items():
        lines.append(f"{name:<{width}} {percent(row['iou']):>7} {percent(row['accuracy']):>9} {row['pixels']:>13,}")
    lines.append("-" * len(lines[0]))
    names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_class_accuracy": "mean class accuracy",
             "fwiou": "fwIoU"}  # fmt: skip
    lines += [f"{text:<{width}} {percent(scores[key]):>7}" for key, text in names.items()]
    return "\n".join(lines)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
