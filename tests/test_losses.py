"""Losses against their formulas; their sums and weights over micro-batches add up to those of the batch."""

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.losses import build_loss

K = 4  # classes


def sample(seed: int = 0, size=(2, 6, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], K, *size[1:], generator=generator) * 2
    label = torch.randint(0, K, size, generator=generator)
    label[0, 0, :3] = 255
    return logits, label


def probabilities(logits: torch.Tensor, label: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(probability of the true class, class) of each labeled pixel, by NumPy."""
    scores = logits.double().numpy().transpose(0, 2, 3, 1).reshape(-1, K)
    truth = label.numpy().ravel()
    scores, truth = scores[truth != 255], truth[truth != 255]
    exponent = np.exp(scores)
    return exponent[np.arange(len(truth)), truth] / exponent.sum(1), truth


def mean(criterion, logits, label) -> float:
    total, weight = criterion(logits, label)
    return float(total / weight)


def test_cross_entropy_is_the_mean_over_labeled_pixels():
    logits, label = sample()
    p, _ = probabilities(logits, label)
    assert mean(build_loss("ce"), logits, label) == pytest.approx(-np.log(p).mean(), rel=1e-5)


def test_class_weights_apply_to_the_sum_and_the_weight():
    logits, label = sample()
    weights = np.array([0.5, 1.0, 3.0, 10.0])
    p, truth = probabilities(logits, label)
    expected = (-np.log(p) * weights[truth]).sum() / weights[truth].sum()
    criterion = build_loss("ce", class_weights=torch.tensor(weights, dtype=torch.float32))
    assert mean(criterion, logits, label) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_the_mean_of_its_formula_at_each_pixel(gamma):
    logits, label = sample()
    p, _ = probabilities(logits, label)
    expected = (-((1 - p) ** gamma) * np.log(p)).mean()
    assert mean(build_loss("focal", focal_gamma=gamma), logits, label) == pytest.approx(expected, rel=1e-4)


def test_focal_gradient_is_not_proportional_to_cross_entropys():
    logits, label = sample()
    gradients = []
    for kind in ("ce", "focal"):
        leaf = logits.clone().requires_grad_()
        build_loss(kind)(leaf, label)[0].backward()
        gradients.append(leaf.grad.transpose(0, 1)[:, label != 255].norm(dim=0))
    ratio = gradients[1] / gradients[0]
    assert ratio.max() / ratio.min() > 10


def test_focal_gradient_is_finite_where_the_prediction_is_certain():
    logits = torch.tensor([100.0, -100.0, -100.0, -100.0]).view(1, K, 1, 1).requires_grad_()
    build_loss("focal", focal_gamma=0.5)(logits, torch.zeros(1, 1, 1, dtype=torch.long))[0].backward()
    assert logits.grad.isfinite().all()


def test_ohem_takes_the_largest_losses_of_each_image():
    logits, label = sample()
    expected, count = 0.0, 0
    for one, truth in zip(logits, label, strict=True):
        p, _ = probabilities(one[None], truth[None])
        losses = np.sort(-np.log(p))[::-1]
        kept = max(1, round(0.3 * len(losses)))
        expected, count = expected + losses[:kept].sum(), count + kept
    total, weight = build_loss("ohem", ohem_fraction=0.3)(logits, label)
    assert float(weight) == count
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_ohem_of_all_pixels_is_cross_entropy():
    logits, label = sample()
    weights = torch.tensor([0.5, 1.0, 3.0, 10.0])
    plain, hard = (build_loss(kind, class_weights=weights, ohem_fraction=1.0) for kind in ("ce", "ohem"))
    assert mean(hard, logits, label) == pytest.approx(mean(plain, logits, label), rel=1e-5)


@pytest.mark.parametrize("kind", ["ce", "focal", "ohem"])
class TestEveryLoss:
    def test_padding_changes_nothing(self, kind):
        logits, label = sample()
        padded = torch.cat([logits, torch.randn(2, K, 5, 7)], dim=2)
        padded_label = torch.cat([label, torch.full((2, 5, 7), 255)], dim=1)
        one, two = build_loss(kind)(logits, label), build_loss(kind)(padded, padded_label)
        assert float(one[0]) == pytest.approx(float(two[0]), rel=1e-6) and one[1] == two[1]

    def test_nothing_labeled_gives_zero_and_a_finite_gradient(self, kind):
        logits = torch.randn(2, K, 5, 5, requires_grad=True)
        total, weight = build_loss(kind)(logits, torch.full((2, 5, 5), 255))
        total.backward()
        assert total == 0 and weight == 0 and (logits.grad == 0).all()

    def test_micro_batches_add_up_to_the_batch(self, kind):
        logits, label = sample()
        criterion = build_loss(kind, class_weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))
        whole = criterion(logits, label)
        micro_batches = [criterion(logits[i : i + 1], label[i : i + 1]) for i in range(2)]
        for index in (0, 1):
            assert float(sum(result[index] for result in micro_batches)) == pytest.approx(float(whole[index]), rel=1e-6)


def test_an_unknown_loss_and_a_fraction_of_0_are_refused():
    with pytest.raises(UserError, match="'dcie': choose one of ce, focal, ohem"):
        build_loss("dcie")
    with pytest.raises(UserError, match="`ohem_fraction` 0"):
        build_loss("ohem", ohem_fraction=0.0)


def test_a_sum_of_losses_has_the_sum_of_their_means():
    logits, label = sample()
    weights = [0.5, 1.0, 3.0, 10.0]
    total = mean(build_loss("ce:0.375+dice:1.125+ohem", class_weights=weights), logits, label)
    parts = [mean(build_loss(name, class_weights=weights), logits, label) for name in ("ce", "dice", "ohem")]
    assert total == pytest.approx(0.375 * parts[0] + 1.125 * parts[1] + parts[2], rel=1e-6)
    assert mean(build_loss("dice:0.5"), logits, label) == pytest.approx(mean(build_loss("dice"), logits, label) / 2)


def test_a_sum_of_losses_has_the_weight_of_the_pixels_and_is_0_without_one():
    logits, label = sample()
    criterion = build_loss("ohem+ce:2+rmi")
    assert criterion(logits, label)[1] == (label != 255).sum()
    total, weight = criterion(logits.requires_grad_(), torch.full_like(label, 255))
    total.backward()
    assert total.item() == weight.item() == 0 and logits.grad.abs().max() == 0


@pytest.mark.parametrize("text", ["", "ce:", "ce:0", "ce:-1", "ce:inf", "ce:nan", "ce+ce", "ce++dice", "CE", "ce:1:2"])
def test_a_wrong_sum_is_an_error(text):
    with pytest.raises(UserError):
        build_loss(text)
