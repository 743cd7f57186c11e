"""Aligned Xception 41, 65 and 71 (DeepLabV3+ section 3.2); the same graph as the official `core/xception.py`."""

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.cpu_layers import AtrousDepthwiseConv2d
from modeling.layers import ConvBNReLU, SeparableConvBNReLU, atrous_plan, initialize, projection, set_epsilon

# (channels, stride) of each block in the entry flow
ENTRY = ((128, 2), (256, 2), (728, 2))
ENTRY_71 = ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2))
# depth -> blocks of the entry flow, number of blocks in the middle flow, the entry block with the low-level features
FLOWS = {41: (ENTRY, 8, 1), 65: (ENTRY, 16, 1), 71: (ENTRY_71, 16, 2)}
EPSILON = 1e-3  # of the backbone's batch norms; the head's is 1e-5


class SeparableConv(nn.Sequential):
    """3x3 depthwise with stride and atrous rate, BN, 1x1 pointwise, BN; without activation."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, rate: int):
        kind = AtrousDepthwiseConv2d if stride == 1 else nn.Conv2d
        super().__init__(
            kind(in_channels, in_channels, 3, stride, rate, rate, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class XceptionBlock(nn.Module):
    """Three separable convolutions, each after a ReLU and the third one with the stride, plus a shortcut.

    `channels` has four entries: of the input, and of the output of each convolution. The shortcut is a 1x1 convolution
    if stride or channels of the classification network change (`has_projection`), else the identity.
    """

    def __init__(self, channels: tuple[int, int, int, int], stride: int, rate: int, *, has_projection: bool):
        super().__init__()
        pairs = zip(channels, channels[1:], (1, 1, stride), strict=False)
        self.convs = nn.ModuleList(SeparableConv(i, o, stride=s, rate=rate) for i, o, s in pairs)
        self.shortcut = projection(channels[0], channels[3], stride) if has_projection else nn.Identity()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """-> the output of the block, and of its second convolution (the decoder's low-level features)."""
        residual, second = features, None
        for index, conv in enumerate(self.convs):
            residual = F.relu(residual)  # not in place, which would change the shortcut's input and `second`
            for layer in conv:  # not conv(residual), which would keep its input in memory until it returns
                residual = layer(residual)
            if index == 1:
                second = residual
        return self.shortcut(features) + residual, second


class Xception(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 256, H/4, W/4], features [B, 2048, H/output_stride, W/output_stride]`

    `depth`: 41, 65 or 71. The low-level features are the output of the second separable convolution, before any ReLU,
    of a block in the entry flow.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(self, depth: int, *, output_stride: int):
        super().__init__()
        self.output_stride = output_stride
        entry, num_middle, self.low_level_block = FLOWS[depth]
        plan = iter(atrous_plan([stride for _, stride in entry] + [1] * num_middle + [2, 1], output_stride))
        self.stem = nn.Sequential(ConvBNReLU(3, 32, 3, stride=2), ConvBNReLU(32, 64, 3))
        self.entry, in_channels = nn.ModuleList(), 64
        for channels, _ in entry:
            block = XceptionBlock((in_channels, channels, channels, channels), *next(plan), has_projection=True)
            self.entry.append(block)
            in_channels = channels
        self.middle = nn.ModuleList(
            XceptionBlock((728, 728, 728, 728), *next(plan), has_projection=False) for _ in range(num_middle)
        )
        self.exit = XceptionBlock((728, 728, 1024, 1024), *next(plan), has_projection=True)
        _, rate = next(plan)
        # The last block of the exit flow: a ReLU after each depthwise and pointwise convolution, and no shortcut
        self.final = nn.Sequential(
            SeparableConvBNReLU(1024, 1536, rate=rate),
            SeparableConvBNReLU(1536, 1536, rate=rate),
            SeparableConvBNReLU(1536, 2048, rate=rate),
        )
        initialize(self)
        set_epsilon(self, EPSILON)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, low_level = self.stem(image), None  # [B, 64, H/2, W/2]
        for index, block in enumerate(self.entry):
            features, second = block(features)
            if index == self.low_level_block:
                low_level = second  # [B, 256, H/4, W/4]
        for block in (*self.middle, self.exit):
            features, _ = block(features)
        return low_level, self.final(features)  # [B, 2048, H/output_stride, W/output_stride]
