"""Scores against a slow computation that shares no code with ours."""

import json

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from utils.labels import scores_to_labels
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
        recall = len(truth & predicted) / len(truth) if truth else None
        precision = len(truth & predicted) / len(predicted) if predicted else None
        # The harmonic mean of precision and recall, 0 where one is 0 or missing
        dice = 2 / (1 / precision + 1 / recall) if precision and recall else (0.0 if union else None)
        rows.append({"iou": iou, "accuracy": recall, "dice": dice, "precision": precision, "recall": recall,
                     "pixels": len(truth)})  # fmt: skip
    ious = [row["iou"] for row in rows if row["iou"] is not None]
    accuracies = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    return {
        "miou": sum(ious) / len(ious),
        "mean_class_accuracy": sum(accuracies) / len(accuracies),
        "pixel_accuracy": sum(label[position] == prediction[position] for position in labeled) / len(labeled),
        "fwiou": sum(row["iou"] * row["pixels"] for row in rows if row["pixels"]) / len(labeled),
        **{
            f"mean_{name}": np.mean([row[name] for row in rows if row[name] is not None])
            for name in ("dice", "precision", "recall")
        },
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
    for name in ("miou", "mean_class_accuracy", "pixel_accuracy", "fwiou", "mean_dice", "mean_precision",
                 "mean_recall"):  # fmt: skip
        assert scores[name] == pytest.approx(expected[name], rel=1e-12), name
    for row, numbers in zip(scores["per_class"].values(), expected["rows"], strict=True):
        assert row == {name: pytest.approx(number) for name, number in numbers.items()}


@pytest.mark.parametrize("num_classes", [1, 2, 19, 180, 181, 255])
@pytest.mark.parametrize("is_on_cuda", [False, True])
def test_counts_equal_those_of_a_loop(num_classes, is_on_cuda, monkeypatch):
    """For labels uint8 and predictions uint8 or int64, also by the operations that CUDA gets."""
    if is_on_cuda:
        monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    random, expected = np.random.default_rng(num_classes), np.zeros((num_classes, num_classes), np.int64)
    confusion = ConfusionMatrix(num_classes)
    for dtype, ignored in ((torch.uint8, 0.2), (torch.int64, 0.2), (torch.uint8, 1)):
        prediction, label = random.integers(0, num_classes, (2, 1, 30, 40), dtype=np.uint8)
        label[random.random(label.shape) < ignored] = 255
        confusion.update(torch.from_numpy(prediction).to(dtype), torch.from_numpy(label))
        for truth, predicted in zip(label.flat, prediction.flat, strict=True):
            if truth != 255:
                expected[truth, predicted] += 1
    assert confusion.counts.dtype == torch.int64 and np.array_equal(confusion.counts.numpy(), expected)


def test_counts_on_cuda_need_no_value_on_the_host():
    """A fake tensor has no values: an operation that waits for one raises."""
    with FakeTensorMode():
        confusion = ConfusionMatrix(19, "cuda:0")
        prediction = scores_to_labels(torch.zeros(1, 19, 8, 9, device="cuda:0"))
        label = torch.zeros(1, 8, 9, dtype=torch.uint8, device="cuda:0")
        confusion.update(prediction, label)
        confusion.update(prediction.long(), label)
        assert confusion.counts.shape == (19, 19) and confusion.counts.device.type == "cuda"
        with pytest.raises(DynamicOutputShapeException):
            label[label != 255]


def test_classes_without_pixels():
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    scores = confusion.scores(NAMES)
    missing = {"accuracy": None, "recall": None, "pixels": 0}
    assert scores["per_class"]["c"] == missing | {"iou": 0.0, "dice": 0.0, "precision": 0.0}  # predicted, never labeled
    assert scores["per_class"]["d"] == missing | {"iou": None, "dice": None, "precision": None}  # neither
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
    assert lines[1].split() == ["a", "50.00", "66.67", "100.00", "50.00", "2"]
    assert lines[4].split() == ["d", "-", "-", "-", "-", "0"]
    assert max(map(len, lines)) <= 80
    assert lines[6].split() == ["mIoU", "25.00"]


def test_counts_are_exact_beyond_float64():
    confusion = ConfusionMatrix(4)
    confusion.counts[0, 0] = 2**53
    confusion.update(torch.tensor([0]), torch.tensor([0]))
    assert confusion.counts[0, 0] == 2**53 + 1
