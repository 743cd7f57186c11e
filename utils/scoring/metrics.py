"""Scores of a segmentation, all from one confusion matrix.

Plain torch, because torchmetrics' JaccardIndex rounds the counts to float32 and gives a class that does not occur 0.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.distributed import all_reduce
from utils.run.files import write_atomically


class ConfusionMatrix:
    """Pixel counts, int64 [K, K]: `counts[truth, prediction]`. Pixels labeled 255 are not counted."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu"):
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, label: Tensor) -> None:
        """Integers of one shape: `prediction` in 0..K-1, `label` in 0..K-1 or 255. Does not wait for CUDA."""
        counts = count_pairs(label.clamp(max=self.num_classes), prediction, self.num_classes + 1, self.num_classes)
        self.counts += counts[:-1]  # the last row is that of 255

    def all_reduce(self) -> None:
        """Add the counts of all processes."""
        all_reduce(self.counts)

    def scores(self, classes: Sequence[str]) -> dict:
        return score_counts(self.counts.cpu(), classes)


def count_pairs(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """int64 [num_rows, num_columns]: at how many pixels integer maps of one shape hold each pair of values.

    The values are below `num_rows` and `num_columns`. CUDA computes it without waiting: no shape depends on a value.
    """
    size = num_rows * num_columns
    is_small = size <= 2**15 and not rows.is_cuda  # bincount reads the pairs three times; index_add_ takes no int16
    pairs = rows.to(torch.int16 if is_small else torch.int32).mul(num_columns).add_(columns).flatten()
    if rows.is_cuda:  # there bincount waits for the largest value
        counts = torch.zeros(size, dtype=torch.int64, device=rows.device)
        counts.index_add_(0, pairs, counts.new_ones(1).expand(len(pairs)))
    else:
        counts = torch.bincount(pairs, minlength=size)
    return counts.view(num_rows, num_columns)


def score_counts(counts: Tensor, classes: Sequence[str]) -> dict:
    """The scores, 0..1: means, and `per_class` {name: iou, accuracy, pixels, dice, precision, recall}.

    `counts` [K, K] as those of `ConfusionMatrix`, on the CPU. A class that is neither in the truth nor predicted has no
    IoU (None) and is left out of the mean; one that is predicted but not in the truth has IoU 0 and no accuracy. Dice
    (F1) is None where IoU is, precision for a class that is not predicted. Recall is another name of the accuracy.
    Without a labeled pixel every score is None.
    """
    counts = counts.double()
    correct, truth, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    iou = correct / (truth + predicted - correct)  # NaN for an empty union
    accuracy = correct / truth
    dice, precision = 2 * correct / (truth + predicted), correct / predicted
    total = truth.sum()
    columns = {"iou": iou, "accuracy": accuracy, "dice": dice, "precision": precision, "recall": accuracy}
    numbers = {name: [nan_to_none(value) for value in column.tolist()] for name, column in columns.items()}
    numbers["pixels"] = truth.long().tolist()
    return {
        "miou": nan_to_none(iou.nanmean()),
        "pixel_accuracy": nan_to_none(correct.sum() / total),
        "mean_class_accuracy": nan_to_none(accuracy.nanmean()),
        "fwiou": nan_to_none((truth * iou).nansum() / total),
        "mean_dice": nan_to_none(dice.nanmean()),
        "mean_precision": nan_to_none(precision.nanmean()),
        "mean_recall": nan_to_none(accuracy.nanmean()),
        "per_class": {
            name: dict(zip(numbers, row, strict=True))
            for name, row in zip(classes, zip(*numbers.values(), strict=True), strict=True)
        },
    }


def nan_to_none(value: Tensor | float) -> float | None:
    """A plain number, or None (null in JSON) for NaN."""
    value = float(value)
    return None if value != value else value


def write_metrics(path: Path, scores: dict, **settings: object) -> None:
    """Write the scores as JSON, after the `settings` they depend on: at least `protocol` and `out_stride`."""
    write_atomically(path, render_metrics(scores, **settings))


def render_metrics(scores: dict, **settings: object) -> bytes:
    """The content of `metrics.json`."""
    return (json.dumps(settings | scores, indent=2) + "\n").encode()


def write_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Write the pixel counts [K, K] as CSV: a row for each true class, a column for each predicted one."""
    rows = ([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    write_csv(path, ["truth \\ prediction", *classes], rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue().encode())


def table(scores: dict) -> str:
    """The scores as lines of text: one for each class, then the means."""
    width = max(map(len, [*scores["per_class"], "mean class accuracy"]))
    lines = [f"{'class':<{width}} {'IoU':>7} {'Dice':>7} {'precision':>9} {'accuracy':>9} {'pixels':>13}"]
    for name, row in scores["per_class"].items():
        iou, dice, precision, accuracy = (percent(row[key]) for key in ("iou", "dice", "precision", "accuracy"))
        lines.append(f"{name:<{width}} {iou:>7} {dice:>7} {precision:>9} {accuracy:>9} {row['pixels']:>13,}")
    lines.append("-" * len(lines[0]))
    names = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "mean_class_accuracy": "mean class accuracy",
             "fwiou": "fwIoU", "mean_dice": "mean Dice", "mean_precision": "mean precision"}  # fmt: skip
    lines += [f"{text:<{width}} {percent(scores[key]):>7}" for key, text in names.items()]
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """0..1 as percent with two decimals; "-" for None."""
    return "-" if value is None else f"{100 * value:.2f}"
