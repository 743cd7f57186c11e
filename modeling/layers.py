"""Layers that several parts of the network share, and the one rule for atrous rates."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import UserError


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU. Keeps the map's size at stride 1, whatever the rate."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, rate: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, rate * (kernel_size // 2), rate, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SeparableConvBNReLU(nn.Sequential):
    """3x3 depthwise, BN, ReLU, then 1x1, BN, ReLU: the paper's atrous separable convolution, as its code has it."""

    def __init__(self, in_channels: int, out_channels: int, *, rate: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def conv3x3(in_channels: int, out_channels: int, *, rate: int = 1, is_separable: bool) -> nn.Sequential:
    """The head's 3x3 convolution in either form."""
    if is_separable:
        return SeparableConvBNReLU(in_channels, out_channels, rate=rate)
    return ConvBNReLU(in_channels, out_channels, 3, rate=rate)


def atrous_plan(strides: Iterable[int], output_stride: int, *, stem_stride: int = 2) -> list[tuple[int, int]]:
    """(stride, rate) to run each unit with, given the strides it has in the classification network.

    Once the network's stride is reached, a unit loses its own: it runs at the rate so far, and only the units after
    it are dilated by what it lost (TF `stack_blocks_dense` and slim's `mobilenet_base`).
    """
    plan, current, rate = [], stem_stride, 1
    for stride in strides:
        if current == output_stride:
            plan.append((1, rate))
            rate *= stride
        else:
            plan.append((stride, 1))
            current *= stride
    return plan


def dilate(conv: nn.Conv2d, rate: int) -> None:
    """Give a library block's 3x3 convolution an atrous rate, in place; its weights do not depend on it."""
    conv.dilation = conv.padding = (rate, rate)


class SameConv2d(nn.Conv2d):
    """A strided convolution with TensorFlow's SAME padding: where it is odd, the larger half is right and bottom.

    It differs from symmetric padding on even sides, by a shift of one pixel.
    """

    def forward(self, features: Tensor) -> Tensor:
        padding: list[int] = []
        for side, kernel, stride in zip(features.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last dimension
        return F.conv2d(F.pad(features, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


PADDINGS = {"symmetric": nn.Conv2d, "same": SameConv2d}


def pad_strided_convolutions(module: nn.Module, padding: str) -> None:
    """Give every strided convolution below `module` this rule: symmetric (PyTorch's) or same (TensorFlow's).

    Each is replaced by one of the other class that holds the same parameters.
    """
    if padding not in PADDINGS:
        raise UserError(f"unknown padding {padding!r}: choose one of {', '.join(PADDINGS)}")
    kind = PADDINGS[padding]
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            is_padded = isinstance(layer, nn.Conv2d) and layer.stride != (1, 1) and layer.kernel_size != (1, 1)
            if is_padded and type(layer) is not kind:
                setattr(parent, name, converted(layer, kind))


def converted(conv: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """`conv` as `kind`, with the same parameters."""
    other = kind(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        bias=conv.bias is not None, device="meta",
    )  # fmt: skip
    other.weight, other.bias = conv.weight, conv.bias
    return other.train(conv.training)


def initialize(module: nn.Module) -> None:
    """He et al. (2015) for every convolution below `module`, 1 and 0 for batch norm."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)


def init_depthwise_identity(head: nn.Module) -> None:
    """Let each depthwise convolution of ASPP and decoder begin as the identity: center tap 1, the eight around it 0.

    On crops, the outer taps of a wide rate fall into the padding and learn nothing (all of rate 18 on a 17x17 map).
    With random values they would speak for the first time when whole images are scored: CamVid at 257 crops, after
    4 epochs, gave 0.15 mIoU instead of 0.40 at the same training loss.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.dirac_(layer.weight, groups=layer.groups)
