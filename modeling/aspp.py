"""Atrous spatial pyramid pooling (DeepLabV3 section 3.3; branches, order and rates as in the official `model.py`)."""

import torch
from torch import Tensor, nn

from modeling.layers import ConvBNReLU, conv3x3, init_depthwise_identity, initialize

RATES_AT_16 = (6, 12, 18)


class ImagePooling(ConvBNReLU):
    """Image-level features: `[B, in_channels, h, w] -> [B, out_channels, h, w]`, the same at every position."""

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean((2, 3), keepdim=True)  # [B, in_channels, 1, 1]
        # Not `resize`, whose gradient CUDA would add up in the type of the map: in bf16 it is up to 20% off
        return super().forward(pooled).expand(-1, -1, *features.shape[-2:])


class ASPP(nn.Module):
    """`features [B, in_channels, h, w] -> [B, 256, h, w]`

    Image pooling, a 1x1 convolution and one 3x3 convolution for each of `rates`, concatenated in this order, projected
    by a 1x1 convolution, then dropout.
    """

    out_channels = 256

    def __init__(self, in_channels: int, *, rates: tuple[int, ...], is_separable: bool, dropout: float):
        super().__init__()
        width = self.out_channels
        atrous = [conv3x3(in_channels, width, rate=rate, is_separable=is_separable) for rate in rates]
        self.branches = nn.ModuleList([ImagePooling(in_channels, width), ConvBNReLU(in_channels, width), *atrous])
        self.project = ConvBNReLU(width * len(self.branches), width)
        self.dropout = nn.Dropout(dropout)
        initialize(self)
        init_depthwise_identity(self)

    def forward(self, features: Tensor) -> Tensor:
        pyramid = torch.cat([branch(features) for branch in self.branches], dim=1)  # [B, 256 * branches, h, w]
        return self.dropout(self.project(pyramid))  # [B, 256, h, w]


def aspp_rates(output_stride: int) -> tuple[int, ...]:
    """(6, 12, 18) at output stride 16, doubled at 8, halved at 32: the same distances in pixels of the image."""
    return tuple(rate * 16 // output_stride for rate in RATES_AT_16)
