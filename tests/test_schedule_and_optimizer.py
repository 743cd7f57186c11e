"""The schedule at a few steps, and the groups of parameters."""

import pytest
import torch
from torch import nn

from modeling import BACKBONES, build_model
from modeling.deeplab import batch_norms
from utils.errors import UserError
from utils.lr_schedule import lr_factor
from utils.optim import init_momentum, parameter_groups, restore_optimizer


def test_poly_at_five_steps():
    values = [lr_factor(step, schedule="poly", total_steps=100) for step in (0, 25, 50, 99, 100)]
    assert values == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.01**0.9, 0])


def test_cos_at_five_steps():
    values = [lr_factor(step, schedule="cos", total_steps=100) for step in (0, 25, 50, 75, 100)]
    assert values == pytest.approx([1, 0.8535533905932737, 0.5, 0.14644660940672624, 0])


def test_step_at_five_steps():
    values = [lr_factor(step, schedule="step", total_steps=100, step_size=40) for step in (0, 39, 40, 79, 80)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_warmup_rises_linearly_to_the_schedule():
    values = [lr_factor(step, schedule="cos", total_steps=1000, warmup_steps=4) for step in range(6)]
    plain = [lr_factor(step, schedule="cos", total_steps=1000) for step in range(6)]
    ratio = [value / factor for value, factor in zip(values, plain, strict=True)]
    assert ratio == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_an_unknown_schedule_is_an_error_that_names_the_choices():
    with pytest.raises(UserError, match="choose one of poly, step, cos"):
        lr_factor(0, schedule="exp", total_steps=1)


def groups_of(model) -> list[dict]:
    return parameter_groups(model, model.backbone, lr=0.1, head_lr_factor=10, weight_decay=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("is_synced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_parameter_is_in_exactly_one_group(backbone, is_synced):
    with torch.device("meta"):
        model = build_model(backbone, 3)
        if is_synced:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    grouped = [id(parameter) for group in groups_of(model) for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()}


def test_learning_rates_and_weight_decay_of_the_groups():
    model = build_model("mobilenet", 3)
    by_parameter = {id(p): group for group in groups_of(model) for p in group["params"]}
    depthwise, pointwise = model.backbone.features[5].conv[1][0].weight, model.backbone.features[5].conv[2].weight
    norm, head = model.backbone.features[5].conv[3].weight, model.decoder.classifier
    assert by_parameter[id(depthwise)]["weight_decay"] == by_parameter[id(norm)]["weight_decay"] == 0
    assert by_parameter[id(pointwise)]["weight_decay"] == by_parameter[id(head.weight)]["weight_decay"] == 1e-4
    assert by_parameter[id(head.bias)]["weight_decay"] == 0
    assert by_parameter[id(pointwise)]["lr"] == 0.1 and by_parameter[id(head.weight)]["lr"] == 1.0


def test_frozen_parameters_are_in_no_group():
    model = build_model("mobilenet", 3)
    model.freeze_batch_norm()
    grouped = {id(parameter) for group in groups_of(model) for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert not any(id(p) in grouped for layer in batch_norms(model) for p in layer.parameters())


def test_restoring_an_optimizer_keeps_its_momentum_and_takes_new_settings():
    weight = nn.Parameter(torch.ones(2))
    old = torch.optim.SGD([{"params": [weight], "base_lr": 1.0}], lr=1.0, momentum=0.9)
    weight.grad = torch.ones(2)
    old.step()
    new = torch.optim.SGD([{"params": [weight], "base_lr": 5.0}], lr=5.0, momentum=0.5)
    restore_optimizer(new, old.state_dict())
    assert new.param_groups[0]["base_lr"] == 5.0 and new.param_groups[0]["momentum"] == 0.5
    assert torch.equal(new.state[weight]["momentum_buffer"], torch.ones(2))


def test_momentum_takes_the_memory_format_of_its_parameter():
    """Fused SGD reads the memory of both in one order: a checkpoint of the other format gives the same step."""
    value, results = torch.arange(2.0 * 3 * 3 * 3).view(2, 3, 3, 3), []
    for formats in ((torch.contiguous_format, torch.channels_last), (torch.channels_last, torch.channels_last)):
        old, new = (nn.Parameter(value.clone(memory_format=each)) for each in formats)
        first, second = (torch.optim.SGD([parameter], lr=1.0, momentum=0.9, fused=True) for parameter in (old, new))
        old.grad = new.grad = (value**2).contiguous(memory_format=torch.channels_last)
        old.grad = old.grad.contiguous(memory_format=formats[0])
        init_momentum(first)
        first.step()
        restore_optimizer(second, first.state_dict())
        second.step()
        results.append(new.detach())
    assert torch.equal(*results)
    torch.testing.assert_close(results[0], value - 1.9 * value**2)


def test_frozen_batch_norm_does_not_change_in_training_steps():
    model = build_model("mobilenet", 3)
    model.freeze_batch_norm()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(groups_of(model), lr=0.1)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(2, 3, 33, 33)).square().mean().backward()
        optimizer.step()
    norms = {id(t) for layer in batch_norms(model) for t in (*layer.parameters(), *layer.buffers())}
    for name, value in model.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name]) == (id(value) in norms), name
    assert model.aspp.dropout.training
