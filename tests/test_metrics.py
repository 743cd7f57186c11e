"""Scores against a slow computation that shares no code with ours."""

import json

import numpy as np
import pytest
import torch

from utils.scoring.metrics import ConfusionMatrix, table, write_metrics

NAMES = ["a", "b", "c", "d"]


def by_sets(prediction: np.ndarray, label: np.ndarray) -> dict:
    """IoU and accuracy of each class from sets of pixel positions."""
    labeled = {position for position in np.ndindex(label.shape) if label[position] != 255}
    rows = []
    for number in range(len(NAMES)):
        truth = {position for position in labeled if label[position] == number}
        predicted = {position for position in labeled if prediction[position] == number}
        union = truth | predicted
        iou = len(truth & predicted) / len(union) if union else None
        rows.append((iou, len(truth & predicted) / len(truth) if truth else None, len(truth)))
    ious = [iou for iou, _, _ in rows if iou is not None]
    accuracies = [accuracy for _, accuracy, _ in rows if accuracy is not None]
    return {
        "miou": sum(ious) / len(ious),
        "mean_class_accuracy": sum(accuracies) / len(accuracies),
        "pixel_accuracy": sum(label[position] == prediction[position] for position in labeled) / len(labeled),
        "fwiou": sum(iou * count for iou, _, count in rows if count) / len(labeled),
        "rows": rows,
    }


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_a_slow_computation(seed):
    random = np.random.default_rng(seed)
    label = random.choice([0, 1, 3, 255], (3, 9, 11))
    prediction = np.where(random.random(label.shape) < 0.6, label, random.integers(0, seed + 1, label.shape))
    prediction[prediction == 255] = 0
    confusion = ConfusionMatrix(4)
    for one, truth in zip(prediction, label, strict=True):  # image by image
        confusion.update(torch.tensor(one), torch.tensor(truth.astype(np.uint8)))
    scores, expected = confusion.scores(NAMES), by_sets(prediction, label)
    for name in ("miou", "mean_class_accuracy", "pixel_accuracy", "fwiou"):
        assert scores[name] == pytest.approx(expected[name], rel=1e-12), name
    for row, (iou, accuracy, pixels) in zip(scores["per_class"].values(), expected["rows"], strict=True):
        assert row == {"iou": pytest.approx(iou), "accuracy": pytest.approx(accuracy), "pixels": pixels}


def test_classes_without_pixels():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    scores = confusion.scores(NAMES)
    assert scores["per_class"]["c"] == {"iou": 0.0, "accuracy": None, "pixels": 0}  # predicted, never labeled
    assert scores["per_class"]["d"] == {"iou": None, "accuracy": None, "pixels": 0}  # neither
    assert scores["miou"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_scores_without_labeled_pixels_are_null(tmp_path):
    confusion = ConfusionMatrix(4)
    confusion.update(torch.zeros(5, dtype=torch.long), torch.full((5,), 255))
    scores = confusion.scores(NAMES)
    assert scores["miou"] is None and scores["fwiou"] is None
    write_metrics(tmp_path / "metrics.json", scores, protocol="whole")
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] is None
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


def test_table_has_a_row_for_each_class():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 1]), torch.tensor([0, 0]))
    lines = table(confusion.scores(NAMES)).splitlines()
    assert lines[1].split() == ["a", "50.00", "50.00", "2"]
    assert lines[4].split() == ["d", "-", "-", "0"]
    assert lines[6].split() == ["mIoU", "25.00"]


def test_counts_are_exact_beyond_float64():
    confusion = ConfusionMatrix(4)
    confusion.counts[0, 0] = 2**53
    confusion.update(torch.tensor([0]), torch.tensor([0]))
    assert confusion.counts[0, 0] == 2**53 + 1
