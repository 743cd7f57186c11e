"""--aux-weight: a second head that trains the backbone, and is no part of the network."""

import json

import pytest
import torch
import torch.nn.functional as F
from running import error_line, in_process
from torch import nn

from modeling import build_model
from modeling.auxiliary import WithAuxiliary
from utils.losses import AuxiliaryLoss, build_loss
from utils.run.checkpoint import read_checkpoint


def labels(*shape: int) -> torch.Tensor:
    label = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1))
    label[:, 0] = 255
    return label


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def test_the_network_computes_the_same_with_a_second_head():
    model = build_model("mobilenet", num_classes=3)
    network, image = WithAuxiliary(model).eval(), torch.randn(2, 3, 65, 49)
    logits, other = network(image)
    assert torch.equal(logits, model(image, upsample=False)) and other.shape == (2, 3, 5, 4)
    names = set(dict(network.named_parameters())) - {f"model.{name}" for name, _ in model.named_parameters()}
    assert names and all(name.startswith("auxiliary.") for name in names)


def test_the_loss_is_that_of_both_outputs():
    torch.manual_seed(2)
    label, outputs = labels(2, 9, 9), [torch.randn(2, 3, side, side, requires_grad=True) for side in (5, 3)]
    total, weight = AuxiliaryLoss(build_loss("ce"), 0.4)(outputs, label)
    own, other = (
        F.cross_entropy(F.interpolate(each, (9, 9), mode="bilinear", align_corners=True), label, ignore_index=255)
        for each in outputs
    )
    torch.testing.assert_close(total / weight, own + 0.4 * other)
    for gradient, expected in zip(
        torch.autograd.grad(total / weight, outputs), torch.autograd.grad(own + 0.4 * other, outputs), strict=True
    ):
        torch.testing.assert_close(gradient, expected)


def test_the_second_loss_of_ohem_is_a_mean_as_well():
    """The chosen pixels differ between the outputs, and with class weights their sums of weights."""
    torch.manual_seed(2)
    label, outputs = labels(2, 9, 9), [torch.randn(2, 3, 9, 9) for _ in range(2)]
    loss = build_loss("ohem", class_weights=[0.8, 1.0, 1.2])
    total, weight = AuxiliaryLoss(loss, 0.5)(outputs, label)
    (own, own_weight), (other, other_weight) = (loss(each, label) for each in outputs)
    assert own_weight != other_weight
    torch.testing.assert_close(total / weight, own / own_weight + 0.5 * other / other_weight)


def test_the_loss_is_0_without_a_labeled_pixel():
    total, weight = AuxiliaryLoss(build_loss("ce"), 0.4)([torch.randn(1, 3, 3, 3)] * 2, torch.full((1, 3, 3), 255))
    assert total == 0 and weight == 0


def test_frozen_batch_norm_is_frozen_in_both_heads():
    model = build_model("mobilenet", num_classes=3)
    model.freeze_batch_norm()
    layers = [layer for layer in WithAuxiliary(model).train().modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not any(layer.training or layer.weight.requires_grad for layer in layers)


def test_a_run_trains_the_second_head_and_saves_it_beside_the_network(data, tmp_path, capsys):
    status, folder = in_process(data, tmp_path, "--max-steps", "2", "--aux-weight", "0.4")
    other = in_process(data, tmp_path / "plain", "--max-steps", "2")[1]
    assert status == 0 and json.loads((folder / "config.json").read_text())["aux_weight"] == 0.4
    one, two = (read_checkpoint(each / "model_best.pth.tar") for each in (folder, other))
    assert one["state_dict"].keys() == two["state_dict"].keys() and "auxiliary_state_dict" not in two
    head = one["auxiliary_state_dict"]
    assert head["auxiliary.0.1.num_batches_tracked"] == 2 and all(value.isfinite().all() for value in head.values())
    # The backbone learns from it
    name = "backbone.stem.0.weight" if "backbone.stem.0.weight" in one["state_dict"] else next(iter(one["state_dict"]))
    assert not torch.equal(one["state_dict"][name], two["state_dict"][name])
    capsys.readouterr()
    assert in_process(data, tmp_path / "plain", "--resume", "auto", "--aux-weight", "0.4")[0] == 2
    assert "--aux-weight 0.4 contradicts the checkpoint's 0.0" in error_line(capsys.readouterr().err)
