"""Trimap bands and boundary IoU against slow computations that share no code with ours."""

import numpy as np
import pytest
import torch

from utils.scoring.boundaries import BoundaryIoU, Trimap, distance_to_other_class, distance_to_void, outline
from utils.scoring.metrics import ConfusionMatrix

CLASSES = ("a", "b", "c")


def scene(seed: int, void: float = 0.1, size=(15, 19)) -> tuple[torch.Tensor, torch.Tensor]:
    """(prediction, label) with patches of three classes and some 255."""
    random = np.random.default_rng(seed)
    label = np.kron(random.integers(0, 3, (3, 4), dtype=np.uint8), np.ones((5, 5), np.uint8))[
        : size[0], : size[1]
    ].copy()
    prediction = np.where(random.random(label.shape) < 0.2, random.integers(0, 3, label.shape), label).astype(np.uint8)
    label[random.random(label.shape) < void] = 255
    return torch.from_numpy(prediction), torch.from_numpy(label)


def slow_distance(label: np.ndarray, is_border) -> np.ndarray:
    """Euclidean distance of each pixel to the nearest one for which `is_border(own value, its value)`."""
    out = np.full(label.shape, np.inf)
    for y, x in np.ndindex(label.shape):
        for v, u in np.ndindex(label.shape):
            if is_border(label[y, x], label[v, u]):
                out[y, x] = min(out[y, x], np.hypot(y - v, x - u))
    return out


def slow_miou(pairs: list[tuple[int, int]]) -> float:
    """Mean IoU of (truth, prediction) pixels over the classes that occur."""
    ious = []
    for value in range(3):
        either = [pair for pair in pairs if value in pair]
        if either:
            ious.append(sum(pair == (value, value) for pair in either) / len(either))
    return float(np.mean(ious))


@pytest.mark.parametrize("border", ["void", "classes"])
def test_trimap_equals_a_slow_computation(border):
    trimap, pairs = Trimap([1, 2, 4], 3, border=border), {1: [], 2: [], 4: []}
    for seed in range(3):
        prediction, label = scene(seed, void=0.02)
        trimap.update("", prediction, label)
        values = label.numpy().astype(int)
        if border == "void":
            distance = slow_distance(values, lambda own, other: other == 255)
        else:
            distance = slow_distance(values, lambda own, other: other not in (own, 255) and own != 255)
        for width, found in pairs.items():
            inside = (distance <= width) & (values != 255)
            found += zip(values[inside].tolist(), prediction.numpy()[inside].tolist(), strict=True)
    scores = trimap.scores(CLASSES)
    assert scores["border"] == border
    for width, found in pairs.items():
        assert scores["miou"][str(width)] == pytest.approx(slow_miou(found), abs=1e-12)


def test_a_band_wider_than_the_image_gives_the_plain_miou():
    trimap, plain = Trimap([1, 1000], 3, border="void"), ConfusionMatrix(3)
    for seed in range(3):
        prediction, label = scene(seed)
        trimap.update("", prediction, label)
        plain.update(prediction, label)
    scores = trimap.scores(CLASSES)["miou"]
    assert scores["1000"] == plain.scores(CLASSES)["miou"] != scores["1"]


def test_a_label_without_void_has_an_empty_band():
    prediction, label = scene(0, void=0)
    trimap = Trimap([1, 1000], 3, border="void")
    trimap.update("", prediction, label)
    assert trimap.scores(CLASSES)["miou"] == {"1": None, "1000": None}
    assert np.isinf(distance_to_void(label.numpy())).all()


def test_a_label_of_one_class_has_no_class_border():
    label = np.zeros((5, 6), np.uint8)
    label[0] = 255
    assert np.isinf(distance_to_other_class(label)).all()


def slow_outline(mask: np.ndarray, reach: int) -> np.ndarray:
    """Pixels with a pixel outside the mask or the image at most `reach` rows and columns away."""
    padded = np.pad(mask, reach)
    out = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        out[y, x] = not padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1].all()
    return out


@pytest.mark.parametrize("reach", [1, 2, 5])
def test_outlines_equal_a_slow_computation(reach):
    for seed in range(4):
        mask = np.kron(np.random.default_rng(seed).random((4, 4)) < 0.7, np.ones((6, 6), bool))
        assert np.array_equal(outline(mask, reach), slow_outline(mask, reach))
    assert outline(np.ones((9, 9), bool), reach).sum() == 81 - max(0, 9 - 2 * reach) ** 2  # the edge is an outline


@pytest.mark.parametrize("ratio", [0.02, 0.1])
def test_boundary_iou_equals_a_slow_computation(ratio):
    ours, counts = BoundaryIoU(3, ratio=ratio), np.zeros((2, 3))
    for seed in range(3):
        prediction, label = scene(seed, void=0.03, size=(15, 20))
        ours.update("", prediction, label)
        reach = max(1, round(ratio * 25.0))  # the diagonal of 15 x 20
        is_labeled = label.numpy() != 255
        for value in range(3):
            one = slow_outline((label.numpy() == value) & is_labeled, reach)
            other = slow_outline((prediction.numpy() == value) & is_labeled, reach)
            counts[:, value] += (one & other).sum(), (one | other).sum()
    scores = ours.scores(CLASSES)
    assert scores["per_class"] == {name: counts[0, n] / counts[1, n] for n, name in enumerate(CLASSES)}
    assert scores["miou"] == pytest.approx((counts[0] / counts[1]).mean()) and scores["ratio"] == ratio


def test_void_pixels_do_not_count():
    """A prediction where the label is 255 changes no score, and the label itself scores 1."""
    prediction, label = scene(5)
    other = torch.where(label == 255, (prediction + 1) % 3, prediction)
    for make in (
        lambda: Trimap([2], 3, border="void"),
        lambda: Trimap([2], 3, border="classes"),
        lambda: BoundaryIoU(3),
    ):
        scores = []
        for predicted in (prediction, other, torch.where(label == 255, 0, label)):
            observer = make()
            observer.update("", predicted, label)
            scores.append(observer.scores(CLASSES))
        assert scores[0] == scores[1]
        miou = scores[2]["miou"]
        assert (miou["2"] if isinstance(miou, dict) else miou) == 1


def test_a_class_in_neither_label_nor_prediction_is_null():
    observer = BoundaryIoU(3)
    observer.update("", torch.zeros(9, 9, dtype=torch.uint8), torch.zeros(9, 9, dtype=torch.uint8))
    assert observer.scores(CLASSES)["per_class"] == {"a": 1.0, "b": None, "c": None}
