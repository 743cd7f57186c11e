"""Dice, Lovász and RMI against slow computations pixel by pixel."""

import math

import numpy as np
import pytest
import torch

from utils.overlap_losses import DiceLoss, LovaszLoss
from utils.region_losses import RMILoss

NUM_CLASSES = 4
WEIGHTS = [0.5, 1.0, 2.0, 4.0]


def maps(seed: int, side: tuple[int, int] = (13, 17), batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels of classes 0 to 2 with ignored pixels; class 3 occurs only in the logits."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, NUM_CLASSES, *side, generator=random)
    label = torch.randint(0, 3, (batch, *side), generator=random)
    label[:, 2:4, 5:] = 255
    return logits, label


def softmax(logits: torch.Tensor) -> np.ndarray:
    values = np.exp(logits.double().numpy())
    return values / values.sum(1, keepdims=True)


def slow_dice(probability: np.ndarray, truth: np.ndarray) -> float:
    intersection = size = 0.0
    for p, g in zip(probability, truth, strict=True):
        intersection += p * g
        size += p * p + g * g
    return 1 - 2 * intersection / size


def slow_lovasz(probability: np.ndarray, truth: np.ndarray) -> float:
    """The sum over pixels, largest error first, of the error times the growth of the Jaccard loss of the set so far."""
    errors, wrong, total, before = np.abs(truth - probability), set(), 0.0, 0.0
    objects = {pixel for pixel, value in enumerate(truth) if value}
    for pixel in sorted(range(len(errors)), key=lambda pixel: -errors[pixel]):
        wrong.add(pixel)
        loss = len(wrong) / len(objects | wrong)  # of a prediction that is wrong at these pixels alone
        total += errors[pixel] * (loss - before)
        before = loss
    return total


def slow_overlap(one_class, logits: torch.Tensor, label: torch.Tensor, weights: list[float]) -> float:
    probabilities = softmax(logits).transpose(1, 0, 2, 3).reshape(NUM_CLASSES, -1)
    truth = label.numpy().ravel()
    labeled = truth != 255
    present = [number for number in range(NUM_CLASSES) if (truth == number).any()]
    losses = [one_class(probabilities[number, labeled], (truth[labeled] == number) * 1.0) for number in present]
    return float(np.average(losses, weights=[weights[number] for number in present]))


@pytest.mark.parametrize("class_weights", [None, WEIGHTS])
@pytest.mark.parametrize(("loss", "one_class"), [(DiceLoss, slow_dice), (LovaszLoss, slow_lovasz)])
def test_an_overlap_loss_is_the_mean_over_the_classes_present(loss, one_class, class_weights):
    logits, label = maps(0)
    total, weight = loss(class_weights and torch.tensor(class_weights))(logits, label)
    pixels = [(class_weights or [1.0] * NUM_CLASSES)[each] for each in label[label != 255]]
    assert float(weight) == pytest.approx(sum(pixels))
    expected = slow_overlap(one_class, logits, label, class_weights or [1.0] * NUM_CLASSES)
    assert float(total / weight) == pytest.approx(expected, rel=1e-5)


def cells(image: np.ndarray) -> np.ndarray:
    """Means over 3x3 cells of the map with a border of one zero."""
    padded = np.pad(image, 1)
    height, width = (side // 3 for side in padded.shape)
    return np.array(
        [[padded[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].mean() for x in range(width)] for y in range(height)]
    )


def scatter(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """9x9: the sum over all 3x3 neighborhoods of the products of what they differ from their means."""

    def vectors(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        all_of_them = [image[y : y + 3, x : x + 3].ravel() for y in range(height - 2) for x in range(width - 2)]
        return np.array(all_of_them) - np.mean(all_of_them, axis=0)

    return sum(np.outer(a, b) for a, b in zip(vectors(one), vectors(other), strict=True))


def slow_rmi(logits: torch.Tensor, label: torch.Tensor, epsilon: float = 5e-4) -> float:
    probabilities, total = softmax(logits), 0.0
    for image, truth in zip(probabilities, label.numpy(), strict=True):
        for number in range(NUM_CLASSES):
            y, p = cells((truth == number) * 1.0), cells(image[number] * (truth != 255))
            inverse = np.linalg.inv(scatter(p, p) + epsilon * np.eye(9))
            rest = scatter(y, y) - scatter(y, p) @ inverse @ scatter(y, p).T
            total += (np.linalg.slogdet(rest + epsilon * np.eye(9))[1] - 9 * math.log(epsilon)) / 2 / 9
    return total / len(label)


@pytest.mark.parametrize("side", [(24, 30), (31, 29)])
def test_rmi_is_the_log_determinant_of_the_labels_given_the_prediction(side):
    logits, label = maps(1, side)
    total, weight = RMILoss()(logits, label)
    assert float(weight) == (label != 255).sum()
    assert float(total / weight) == pytest.approx(slow_rmi(logits, label), rel=1e-5)


LOSSES = [DiceLoss, LovaszLoss, RMILoss]


@pytest.mark.parametrize("loss", LOSSES)
class TestEach:
    def test_ignored_pixels_count_nothing(self, loss):
        logits, label = maps(2)
        other = logits + 9 * torch.randn_like(logits) * (label == 255)[:, None]
        assert torch.equal(loss()(logits, label)[0], loss()(other, label)[0])

    def test_without_a_label_value_and_gradient_are_zero(self, loss):
        logits, label = maps(3)
        total, weight = loss()(logits.requires_grad_(), torch.full_like(label, 255))
        total.backward()
        assert total.item() == weight.item() == 0 and logits.grad.abs().max() == 0

    def test_the_memory_format_does_not_matter(self, loss):
        logits, label = maps(4)
        expected = loss()(logits, label)[0]
        assert torch.allclose(loss()(logits.contiguous(memory_format=torch.channels_last), label)[0], expected)

    def test_a_better_prediction_has_a_lower_loss(self, loss):
        logits, label = maps(5, (25, 25))
        truth = torch.nn.functional.one_hot(label.clamp(max=3), NUM_CLASSES).movedim(-1, 1)
        losses = [float(loss()(logits + factor * truth, label)[0]) for factor in (0, 3, 9)]
        assert losses == sorted(losses, reverse=True) and losses[2] < 0.5 * losses[0]

    def test_the_gradient_is_that_of_its_value(self, loss):
        logits, label = maps(6, (8, 7), batch=1)
        assert torch.autograd.gradcheck(lambda x: loss()(x, label)[0], logits.double().requires_grad_(), atol=1e-4)

    @pytest.mark.parametrize("side", [(1, 1), (2, 5), (3, 3)])
    def test_tiny_maps_have_a_value(self, loss, side):
        total, _ = loss()(torch.zeros(1, NUM_CLASSES, *side), torch.zeros(1, *side, dtype=torch.int64))
        assert total.isfinite()
