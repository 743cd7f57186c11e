"""Layers and losses with their own backward passes on the CPU, against torch's autograd."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling.cpu_layers import AtrousDepthwiseConv2d, ReLU6, norm_relu_conv
from utils.geometry import resize
from utils.losses import CrossEntropy, build_loss
from utils.upsampled_cross_entropy import upsampled_cross_entropy

FORMATS = [torch.contiguous_format, torch.channels_last]


def gradients(result: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(9), dtype=result.dtype)
    return torch.autograd.grad((result * weights).sum(), inputs)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("rate", "size"), [(1, (5, 6)), (2, (7, 5)), (6, (9, 13)), (12, (17, 11)), (18, (17, 17))])
def test_an_atrous_depthwise_convolution_is_torchs(rate, size, memory_format):
    layer = AtrousDepthwiseConv2d(4, 4, 3, padding=rate, dilation=rate, groups=4, bias=False).double()
    features = torch.randn(2, 4, *size).double().contiguous(memory_format=memory_format).requires_grad_()
    expected = F.conv2d(features, layer.weight, None, 1, rate, rate, 4)
    result = layer(features)
    torch.testing.assert_close(result, expected)
    with torch.no_grad():
        assert torch.equal(layer(features), expected)
    for one, other in zip(*(gradients(each, features, layer.weight) for each in (result, expected)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("kernel", "stride", "rate", "groups"), [(1, 1, 1, 1), (3, 2, 1, 1), (3, 1, 2, 3)])
def test_a_convolution_after_norm_and_relu_is_torchs(kernel, stride, rate, groups, memory_format):
    torch.manual_seed(4)
    layers = nn.Sequential(
        nn.BatchNorm2d(6, momentum=0.3), nn.ReLU(), nn.Conv2d(6, 9, kernel, stride, rate * (kernel // 2), rate, groups)
    ).double()  # fmt: skip
    layers[2].bias = None
    nn.init.normal_(layers[0].weight)
    nn.init.normal_(layers[0].bias)
    others = copy.deepcopy(layers)
    features = torch.randn(2, 6, 7, 9).double().contiguous(memory_format=memory_format).requires_grad_()
    result, expected = norm_relu_conv(others[0], others[2], features), layers(features)
    assert torch.equal(result, expected)
    assert all(map(torch.equal, others.buffers(), layers.buffers()))
    one, two = (gradients(each, features, *net.parameters()) for each, net in ((result, others), (expected, layers)))
    for gradient, other in zip(one, two, strict=True):
        torch.testing.assert_close(gradient, other)
    for layer in (layers[0], others[0]):
        layer.eval()
    assert torch.equal(norm_relu_conv(others[0], others[2], features), layers(features))


def test_a_convolution_after_norm_and_relu_keeps_one_map():
    """Of its own input and that of the norm."""
    norm, conv, kept = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), []
    features = torch.randn(2, 4, 32, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda x: x):
        norm_relu_conv(norm, conv, features)
    assert kept.count(features.numel()) == 1


def test_relu6_in_place_has_the_gradient_of_torchs():
    features = 4 * torch.randn(3, 4, 5, 6)
    features.flatten()[:4] = torch.tensor([0.0, 6.0, -0.0, 3.0])
    results = []
    for layer in (ReLU6(inplace=True), nn.ReLU6()):
        leaf = features.clone().requires_grad_()
        output = layer(leaf * 1)
        results.append((output, *gradients(output, leaf)))
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("old", "new"), [((5, 7), (17, 25)), ((1, 1), (4, 3)), ((4, 4), (9, 6)), ((6, 5), (3, 5))])
def test_the_gradient_of_a_resizing_is_torchs(old, new, memory_format):
    maps = torch.randn(2, 3, *old).double().contiguous(memory_format=memory_format).requires_grad_()
    expected = F.interpolate(maps, size=new, mode="bilinear", align_corners=True)
    assert torch.equal(resize(maps, new), expected)
    torch.testing.assert_close(gradients(resize(maps, new), maps), gradients(expected, maps))


@pytest.mark.parametrize("strip_bytes", [1, 1000, 1 << 20])
@pytest.mark.parametrize(("old", "new"), [((9, 7), (33, 25)), ((1, 1), (5, 4)), ((5, 4), (16, 21)), ((3, 3), (64, 3))])
def test_cross_entropy_of_upsampled_logits_is_that_after_upsampling(old, new, strip_bytes, monkeypatch):
    monkeypatch.setattr("utils.upsampled_cross_entropy.STRIP_BYTES", strip_bytes)
    logits = (4 * torch.randn(2, 5, *old)).double().requires_grad_()
    label = torch.randint(0, 5, (2, *new))
    label[0, :2] = 255
    whole = F.interpolate(logits, size=new, mode="bilinear", align_corners=True)
    expected = F.cross_entropy(whole, label, ignore_index=255, reduction="none")
    result = upsampled_cross_entropy(logits, label, ignore_index=255)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradients(result, logits), gradients(expected, logits))


@pytest.mark.parametrize("kind", ["ce", "focal", "ohem", "dice", "lovasz", "rmi", "ce:0.5+dice"])
def test_every_loss_takes_logits_of_a_quarter_of_the_size(kind):
    logits = torch.randn(2, 4, 9, 9).requires_grad_()
    label = torch.randint(0, 4, (2, 33, 33))
    label[1, 5:] = 255
    criterion = build_loss(kind, class_weights=[1.0, 2.0, 0.5, 1.0])
    (total, weight), (expected, expected_weight) = (
        criterion(each, label)
        for each in (logits, F.interpolate(logits, size=(33, 33), mode="bilinear", align_corners=True))
    )
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    assert weight == expected_weight
    for one, other in zip(torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_make_the_loss_not_finite(bad):
    logits = torch.zeros(1, 3, 3, 3)
    logits[0, 1, 1, 1] = bad
    assert not CrossEntropy()(logits, torch.zeros(1, 9, 9, dtype=torch.int64))[0].isfinite()
