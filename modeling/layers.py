"""Layers that several parts of the network share, their atrous rates, padding, epsilon and initialization."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.cpu_layers import AtrousDepthwiseConv2d, norm_relu_conv
from utils.errors import UserError


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU. At stride 1 it keeps height and width, at any atrous rate."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, *, stride: int = 1, rate: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, rate * (kernel_size // 2), rate, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SeparableConvBNReLU(nn.Sequential):
    """Atrous separable convolution (DeepLabV3+ section 3.1): 3x3 depthwise, BN, ReLU, then 1x1 pointwise, BN, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, rate: int = 1):
        super().__init__(
            AtrousDepthwiseConv2d(
                in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False
            ),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        depthwise, norm, _, pointwise, last_norm, relu = self
        return relu(last_norm(norm_relu_conv(norm, pointwise, depthwise(features))))


def conv3x3(in_channels: int, out_channels: int, *, rate: int = 1, is_separable: bool) -> nn.Sequential:
    """A 3x3 convolution of ASPP or decoder, depthwise separable or full."""
    if is_separable:
        return SeparableConvBNReLU(in_channels, out_channels, rate=rate)
    return ConvBNReLU(in_channels, out_channels, 3, rate=rate)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The shortcut of a residual unit that changes stride or channels: 1x1 convolution, BN."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def atrous_plan(strides: Iterable[int], output_stride: int, *, stem_stride: int = 2) -> list[tuple[int, int]]:
    """(stride, rate) of each unit at `output_stride`, given the `strides` of the classification network.

    Once `output_stride` is reached, a unit runs at stride 1 and the current rate, and the rate of the units after it is
    multiplied by the stride it lost (TF `stack_blocks_dense` and slim's `mobilenet_base`).
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
    """Set the atrous rate of a 3x3 convolution in place, with the padding that keeps height and width."""
    conv.dilation = conv.padding = (rate, rate)


class SameConv2d(nn.Conv2d):
    """A strided convolution with TensorFlow's SAME padding: if it is odd, right and bottom get the extra pixel.

    On even sides the result differs from symmetric padding by a shift of one pixel.
    """

    def forward(self, features: Tensor) -> Tensor:
        padding: list[int] = []
        for side, kernel, stride in zip(features.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last dimension
        return F.conv2d(F.pad(features, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


PADDINGS = {"symmetric": nn.Conv2d, "same": SameConv2d}


def pad_strided_convolutions(module: nn.Module, padding: str) -> None:
    """Set the padding of every strided convolution below `module`: symmetric (PyTorch's) or same (TensorFlow's).

    Each is replaced by one of the other class that holds the same parameters; classes of other libraries stay.
    """
    if padding not in PADDINGS:
        raise UserError(f"unknown padding {padding!r}: choose one of {', '.join(PADDINGS)}")
    kind = PADDINGS[padding]
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            is_padded = type(layer) in PADDINGS.values() and layer.stride != (1, 1) and layer.kernel_size != (1, 1)
            if is_padded and type(layer) is not kind:
                setattr(parent, name, converted(layer, kind))


def converted(conv: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """`conv` as a module of class `kind`, with the same parameters."""
    other = kind(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups,
        bias=conv.bias is not None, device="meta",
    )  # fmt: skip
    other.weight, other.bias = conv.weight, conv.bias
    return other.train(conv.training)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch norm below `module`, synchronized or local."""
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm)]


def set_epsilon(module: nn.Module, epsilon: float) -> None:
    """Set the epsilon of every batch norm below `module`."""
    for layer in batch_norms(module):
        layer.eps = epsilon


def initialize(module: nn.Module) -> None:
    """He et al. (2015) for every convolution below `module`; batch norm keeps PyTorch's weight 1 and bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def init_depthwise_identity(head: nn.Module) -> None:
    """Initialize each depthwise 3x3 convolution of ASPP and decoder as the identity: center weight 1, outer weights 0.

    If the feature map of a crop is no larger than the atrous rate, the outer weights multiply only padding and get no
    gradient (rate 18 on a 17x17 map). Random ones would keep their values and first take effect on whole images: CamVid
    at 257 crops, after 4 epochs, scored 0.15 mIoU instead of 0.40 at the same training loss.
    """
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.dirac_(layer.weight, groups=layer.groups)
