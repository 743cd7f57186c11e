"""SAM, MixUp, clipping, decoupled weight decay, AdamW and the forms of EMA, each against its formula."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import ToyNetwork, toy_trainer

from utils.losses import CrossEntropy
from utils.mixup import mix
from utils.optim import build_optimizer, step_with_mean
from utils.sam import ascended

EVERYTHING = {"sam_rho": 0.3, "sam_every": 2, "mixup_alpha": 0.4, "max_norm": 0.05, "ema_decay": 0.8, "ema_every": 2}


def trained(steps: int, dropout: float = 0.0, **settings) -> nn.Module:
    """The toy network after `steps` steps."""
    trainer = toy_trainer(**{"max_steps": steps} | settings)
    trainer.model.dropout.p = dropout
    assert trainer.fit() == 0
    return trainer.model


def toy_batch(step: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized images and labels of a step."""
    batches = iter(toy_trainer().train_loader)
    batch = [next(batches) for _ in range(step)][-1]
    return (batch["image"] / 255 - 0.5) / 0.25, batch["label"].long()


def gradients(weights: list[torch.Tensor], images: torch.Tensor, label: torch.Tensor) -> list[torch.Tensor]:
    loss = F.cross_entropy(F.conv2d(images, *weights), label, ignore_index=255)
    return list(torch.autograd.grad(loss, weights))


def initial_weights() -> list[torch.Tensor]:
    return [parameter.detach().requires_grad_() for parameter in toy_trainer().model.parameters()]


def norm(tensors) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sam_takes_the_gradient_at_the_point_up_the_slope(accumulate):
    """Two equal micro-batches have the mean of one."""

    class Same(CrossEntropy):
        def forward(self, logits, label):
            images, label = toy_batch()
            return super().forward(trainer.network(images), label)

    trainer = toy_trainer(criterion=Same(), max_steps=1, sam_rho=0.5, accumulate=accumulate, steps_per_epoch=2)
    trainer.model.dropout.p = 0.0
    trainer.network.train()
    trainer.train_step([next(iter(trainer.train_loader))] * accumulate)
    weights, batch = initial_weights(), toy_batch()
    slope = gradients(weights, *batch)
    uphill = [(w + 0.5 * g / norm(slope)).detach().requires_grad_() for w, g in zip(weights, slope, strict=True)]
    for w, g, new in zip(weights, gradients(uphill, *batch), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), (w - 0.1 * g).detach())


def test_sam_in_every_second_step_leaves_the_first_as_it_is():
    plain, sam = ([*trained(1, **how).parameters()] for how in ({}, {"sam_rho": 0.5, "sam_every": 2}))
    assert all(map(torch.equal, plain, sam))
    plain, sam = ([*trained(2, **how).parameters()] for how in ({}, {"sam_rho": 0.5, "sam_every": 2}))
    assert not all(map(torch.equal, plain, sam))


def test_both_passes_of_sam_drop_the_same_features():
    """Up a slope of length 0 the gradient is the same, if dropout is."""
    plain, sam = (trained(3, dropout=0.5, **how) for how in ({}, {"sam_rho": 1e-12}))
    assert all(map(torch.equal, plain.parameters(), sam.parameters()))


def test_sam_keeps_the_statistics_of_the_first_pass():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    images = torch.randn(2, 3, 5, 5)
    network(images).square().sum().backward()
    before = copy.deepcopy(network.state_dict())
    with ascended(network, 10.0):
        network(images).sum().backward()
        assert not torch.equal(network[0].weight, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("bad_pass", [1, 2])
def test_a_loss_of_sam_that_is_not_finite_changes_no_weight(bad_pass):
    class Bad(CrossEntropy):
        calls = 0

        def forward(self, logits, label):
            self.calls += 1
            total, weight = super().forward(logits, label)
            return total * (float("nan") if self.calls == bad_pass else 1), weight

    trainer = toy_trainer(criterion=Bad(), sam_rho=0.5)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(Exception, match="the loss is nan"):
        trainer.fit()
    assert all(map(torch.equal, before, trainer.model.parameters()))


def test_mixup_mixes_images_and_losses(monkeypatch):
    monkeypatch.setattr("utils.train_step.draw_share", lambda alpha: 0.7)
    (images, label), weights = toy_batch(), initial_weights()
    new = trained(1, mixup_alpha=0.4)
    logits = F.conv2d(0.7 * images + 0.3 * images[[1, 0]], *weights)
    losses = [F.cross_entropy(logits, each, ignore_index=255) for each in (label, label[[1, 0]])]
    expected = torch.autograd.grad(0.7 * losses[0] + 0.3 * losses[1], weights)
    for w, g, value in zip(weights, expected, new.parameters(), strict=True):
        torch.testing.assert_close(value.detach(), (w - 0.1 * g).detach())
    assert torch.equal(mix(images[:1], 0.7), images[:1])


@pytest.mark.parametrize("is_fused", [True, False])
def test_clipping_limits_the_norm_of_the_mean_gradient(is_fused):
    weights = initial_weights()
    slope = gradients(weights, *toy_batch())
    limit = float(norm(slope)) / 4
    for max_norm, factor in ((limit, 0.25), (8 * limit, 1.0)):
        new = trained(1, max_norm=max_norm, is_fused=is_fused)
        for w, g, value in zip(weights, slope, new.parameters(), strict=True):
            torch.testing.assert_close(value.detach(), (w - 0.1 * factor * g).detach())


def small_optimizer(**how) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    given = {"lr": 0.1, "head_lr_factor": 2.0, "weight_decay": 0.01, "momentum": 0.9} | how
    return model, build_optimizer(model, model[0], **given)


def make_steps(model: nn.Module, optimizer: torch.optim.Optimizer, factors=(1.0, 0.5)) -> None:
    """Two steps, with learning rates times `factors`, by gradients of ones over 1."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for factor in factors:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        step_with_mean(optimizer, scaler, divisor=torch.tensor(1.0), is_finite=torch.tensor(True))


def test_decoupled_weight_decay_follows_the_schedule_alone():
    model, optimizer = small_optimizer(is_decoupled=True)
    start = {name: value.detach().double().clone() for name, value in model.named_parameters()}
    make_steps(model, optimizer)
    for name, value in model.named_parameters():
        lr = 0.1 if name.startswith("0.") else 0.2
        decay = 0.01 if name in ("0.weight", "2.weight") else 0.0
        expected = start[name] * (1 - decay) - lr  # the momentum of the first step is the gradient
        expected = expected * (1 - decay * 0.5) - 0.5 * lr * 1.9
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)


def test_adamw_is_that_of_its_paper():
    model, optimizer = small_optimizer(kind="adamw")
    start = {name: value.detach().double().clone() for name, value in model.named_parameters()}
    make_steps(model, optimizer)
    for name, value in model.named_parameters():
        lr = 0.1 if name.startswith("0.") else 0.2
        decay = 0.01 if name in ("0.weight", "2.weight") else 0.0
        expected = start[name]
        for rate in (lr, 0.5 * lr):  # for a constant gradient of 1 both moments are 1 after the correction of bias
            expected = expected * (1 - rate * decay) - rate / (1 + 1e-8)
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", [{"is_decoupled": True}, {"kind": "adamw"}])
def test_a_step_that_is_not_finite_neither_decays_nor_moves(how):
    model, optimizer = small_optimizer(**how)
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    step_with_mean(optimizer, scaler, divisor=torch.tensor(1.0), is_finite=torch.tensor(False))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_ema_every_second_step_is_the_average_of_these_weights():
    weights, averages = [], []
    trainer = toy_trainer(ema_decay=0.8, ema_every=2, save_every=1, max_steps=6)
    trainer.fit()
    for state in trainer.recorder.states:
        weights.append(state["state_dict"]["conv.weight"])
        averages.append(state["ema_state_dict"]["conv.weight"])
    steps = [state["step"] for state in trainer.recorder.states]
    by_step = {step: (w, a) for step, w, a in zip(steps, weights, averages, strict=True)}
    expected = by_step[2][0]
    assert torch.equal(by_step[2][1], expected)
    for step in (4, 6):
        expected = 0.8 * expected + 0.2 * by_step[step][0]
        torch.testing.assert_close(by_step[step][1], expected)
        assert torch.equal(by_step[step - 1][1], by_step[step - 2][1])


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_resumed_run_equals_one_that_never_stopped(step):
    whole = toy_trainer(**EVERYTHING, save_every=1)
    whole.fit()
    states = {state["step"]: state for state in whole.recorder.states[::-1]}  # the first of each step
    resumed = toy_trainer(**EVERYTHING, save_every=1, state=states[step])
    resumed.fit()
    last, other = whole.recorder.states[-1], resumed.recorder.states[-1]
    for key in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(value, other[key][name]) for name, value in last[key].items())


def test_the_toy_has_the_weights_that_these_tests_take():
    torch.manual_seed(3)
    assert torch.equal(ToyNetwork().conv.weight, initial_weights()[0])
