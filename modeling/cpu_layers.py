"""Layers of convolutional networks whose backward pass takes less time or memory than torch's, above all on the CPU.

Their results have the same bits in the forward pass, but for atrous rates from SLOW_RATE on, which differ in rounding.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SLOW_RATE = 12  # from here on oneDNN's convolution takes 2 to 13 times as long as `sum_of_places`


class ReLU6(nn.ReLU6):
    """In place. For its backward pass it keeps the result, where torch keeps a copy of the input: a third of what
    MobileNetV2 holds in a training step.
    """

    def forward(self, features: Tensor) -> Tensor:
        if is_plain(features):
            return F.hardtanh(features, 0.0, 6.0, inplace=True)
        return ClampInPlace.apply(features)


class ClampInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        ctx.mark_dirty(features)
        F.hardtanh(features, 0.0, 6.0, inplace=True)
        ctx.save_for_backward(features)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (result,) = ctx.saved_tensors  # strictly between 0 and 6 where the input was
        return torch.ops.aten.hardtanh_backward(gradient, result, 0.0, 6.0)


class AtrousDepthwiseConv2d(nn.Conv2d):
    """A 3x3 depthwise convolution of stride 1 whose atrous rate keeps height and width.

    oneDNN, with which torch computes convolutions on the CPU, takes two to six times as long to train one of a rate
    above 1.
    """

    def forward(self, features: Tensor) -> Tensor:
        is_slow = features.device.type == "cpu" and self.dilation != (1, 1) and not torch.is_autocast_enabled("cpu")
        if is_plain(features) or not is_slow:
            return super().forward(features)
        return AtrousDepthwise.apply(features, self.weight, self.dilation[0])


class AtrousDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, weight: Tensor, rate: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.rate = rate
        return convolve(features, weight, rate)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, weight = ctx.saved_tensors
        of_weight = torch.zeros_like(weight)
        for place, read, written in places(features.shape[2:], ctx.rate):
            of_weight[(slice(None), 0, *place)] = (features[(..., *read)] * gradient[(..., *written)]).sum((0, 2, 3))
        return convolve(gradient, weight.flip(2, 3), ctx.rate), of_weight, None


def convolve(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    if rate < SLOW_RATE:
        return F.conv2d(features, weight, None, 1, rate, rate, len(weight))
    return sum_of_places(features, weight, rate)


def sum_of_places(features: Tensor, weight: Tensor, rate: int) -> Tensor:
    """The convolution, one weight of the kernels after the other, without those that multiply only padding."""
    result = features * weight[:, 0, 1:2, 1:2]
    for (row, column), read, written in places(features.shape[2:], rate):
        if (row, column) != (1, 1):
            weights = weight[:, 0, row : row + 1, column : column + 1]
            result[(..., *written)].addcmul_(features[(..., *read)], weights)
    return result


def places(
    size: Sequence[int], rate: int
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """(row and column in a 3x3 kernel, pixels that its weight reads, pixels of the result that get them), if any."""
    height, width = size
    for row, column in itertools.product(range(3), range(3)):
        rows, rows_out = overlap(height, (row - 1) * rate)
        columns, columns_out = overlap(width, (column - 1) * rate)
        if rows.start < rows.stop and columns.start < columns.stop:
            yield (row, column), (rows, columns), (rows_out, columns_out)


def overlap(side: int, shift: int) -> tuple[slice, slice]:
    """The pixels of a side that a weight `shift` pixels off the center reads, and those of the result that get them."""
    length = max(0, side - abs(shift))
    return slice(max(0, shift), max(0, shift) + length), slice(max(0, -shift), max(0, -shift) + length)


def norm_relu_conv(norm: nn.Module, conv: nn.Conv2d, features: Tensor) -> Tensor:
    """`conv` of the ReLU of `norm`. In training on the CPU the backward pass computes the input of `conv` again from
    that of `norm`, in place of keeping both.
    """
    is_usual = type(norm) is nn.BatchNorm2d and type(conv) is nn.Conv2d  # not synchronized, no other padding
    is_usual = is_usual and norm.training and norm.momentum is not None and conv.bias is None
    is_on_cpu = features.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if is_plain(features) or not (is_usual and is_on_cpu):
        return conv(F.relu(norm(features), inplace=True))
    norm.num_batches_tracked.add_(1)
    return NormReLUConv.apply(features, norm.weight, norm.bias, conv.weight, norm, conv)


class NormReLUConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, features: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, norm: nn.BatchNorm2d, conv: nn.Conv2d
    ) -> Tensor:
        statistics = norm.running_mean, norm.running_var
        normed, mean, inverse_deviation = torch.native_batch_norm(
            features, scale, shift, *statistics, True, norm.momentum, norm.eps
        )
        ctx.save_for_backward(features, scale, shift, mean, inverse_deviation, weight)
        ctx.eps, ctx.geometry = norm.eps, (conv.stride, conv.padding, conv.dilation)
        return F.conv2d(normed.relu_(), weight, None, *ctx.geometry, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, scale, shift, mean, inverse_deviation, weight = ctx.saved_tensors
        factor = scale * inverse_deviation
        activated = torch.addcmul(as_map(shift - mean * factor), features, as_map(factor)).relu_()
        groups = activated.shape[1] // weight.shape[1]
        of_input, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, activated, weight, None, *ctx.geometry, False, (0, 0), groups, (True, True, False)
        )
        torch.ops.aten.threshold_backward.grad_input(of_input, activated, 0, grad_input=of_input)
        of_norm = torch.ops.aten.native_batch_norm_backward(
            of_input, features, scale, None, None, mean, inverse_deviation, True, ctx.eps, (True, True, True)
        )
        return *of_norm, of_weight, None, None


def as_map(values: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]"""
    return values.view(1, -1, 1, 1)


def is_plain(features: Tensor) -> bool:
    """Whether torch's own layer is to be called: nothing is trained, or a graph is compiled or exported."""
    return not (torch.is_grad_enabled() and features.requires_grad) or torch.compiler.is_compiling()
