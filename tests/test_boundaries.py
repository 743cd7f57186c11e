"""Trimap bands and boundary IoU against slow computations that share no code with ours."""

import numpy as np
import pytest
import torch

from utils.scoring.boundaries import BoundaryIoU, Trimap, narrowest_band, outlines
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


def slow_distance(label: np.ndarray, border: str) -> np.ndarray:
    """Euclidean distance of each pixel to the nearest border, infinite if there is none."""
    out = np.full(label.shape, np.inf)
    rows, columns = np.mgrid[: label.shape[0], : label.shape[1]]
    for y, x in np.ndindex(label.shape):
        is_border = label == 255 if border == "void" else (label != 255) & (label != label[y, x])
        out[y, x] = np.hypot(rows - y, columns - x)[is_border].min(initial=np.inf)
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
        distance = slow_distance(values, border)
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


def single_pixels(random) -> np.ndarray:
    label = np.full((23, 31), 7, np.uint8)
    label[random.random(label.shape) < 0.01] = 0
    return label


def stripes(random) -> np.ndarray:
    """One to four columns wide, with gaps of 255."""
    label = np.tile(np.repeat(random.integers(0, 3, 20), random.integers(1, 5, 20)), (17, 1)).astype(np.uint8)
    label[:, random.integers(0, label.shape[1], 12)] = 255
    return label


def patches_in_void(random) -> np.ndarray:
    """Few labeled pixels, so that the next class is behind 255."""
    label = np.kron(random.integers(0, 4, (5, 6), dtype=np.uint8), np.ones((5, 5), np.uint8))
    label[random.random(label.shape) < 0.9] = 255
    return label


def many_classes(random) -> np.ndarray:
    """All of 0 to 254, and 255."""
    return random.permutation(np.arange(24 * 32, dtype=np.uint8)).reshape(24, 32)


def one_class(random) -> np.ndarray:
    label = np.zeros((9, 6), np.uint8)
    label[0] = 255
    return label


LABELS = pytest.mark.parametrize(
    "make",
    [
        single_pixels, stripes, patches_in_void, many_classes, one_class,
        lambda random: stripes(random)[:1], lambda random: stripes(random).T.copy(),
        lambda random: np.full((4, 5), 255, np.uint8), lambda random: np.zeros((1, 1), np.uint8),
    ],
    ids=["single pixels", "stripes", "patches in void", "many classes", "one class", "one row", "rows", "void",
         "one pixel"],
)  # fmt: skip


@LABELS
@pytest.mark.parametrize("border", ["void", "classes"])
@pytest.mark.parametrize("widths", [(1,), (1, 2, 3, 4, 5, 6, 7, 8), (4, 16, 32), (1000,), (3, 10**6)])
def test_the_narrowest_band_follows_from_the_distance(make, border, widths):
    label = make(np.random.default_rng(0))
    expected = (slow_distance(label, border)[..., None] > np.array(widths)).sum(-1)
    is_labeled = label != 255
    assert np.array_equal(narrowest_band(label, widths, border)[is_labeled], expected[is_labeled])


def slow_outline(mask: np.ndarray, reach: int) -> np.ndarray:
    """Pixels with a pixel outside the mask or the image at most `reach` rows and columns away."""
    padded = np.pad(mask, reach)
    out = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        out[y, x] = not padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1].all()
    return out


@LABELS
@pytest.mark.parametrize("reach", [1, 2, 5, 12, 1000])
def test_outlines_equal_a_slow_computation(make, reach):
    label = make(np.random.default_rng(0))
    expected = np.full(label.shape, 255, np.uint8)
    for value in set(label.flat) - {255}:
        expected[slow_outline(label == value, min(reach, 40))] = value  # 40 is wider than each label
    assert np.array_equal(outlines(label, reach), expected)


@pytest.mark.parametrize("reach", [1, 2, 5])
def test_the_edge_of_the_image_is_an_outline(reach):
    assert (outlines(np.zeros((9, 9), np.uint8), reach) == 0).sum() == 81 - max(0, 9 - 2 * reach) ** 2


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
