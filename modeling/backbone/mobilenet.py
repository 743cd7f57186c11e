"""MobileNetV2 in torchvision's form, with the atrous rates of slim's `mobilenet_base`.

The names are torchvision's, so its ImageNet weights load without renaming. As in the official DeepLab, the classifier's
1280-channel convolution is left out.
"""

from torch import Tensor, nn

from modeling.backbone.blocks import ConvBNReLU6, InvertedResidual
from modeling.cpu_layers import AtrousDepthwiseConv2d
from modeling.layers import atrous_plan, converted, dilate, initialize

# (expansion, channels, stride) of each of the 17 blocks: Table 2 of arXiv 1801.04381
BLOCKS = [
    *[(1, 16, 1)],
    *[(6, 24, 2), (6, 24, 1)],
    *[(6, 32, 2), (6, 32, 1), (6, 32, 1)],
    *[(6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)],
    *[(6, 96, 1), (6, 96, 1), (6, 96, 1)],
    *[(6, 160, 2), (6, 160, 1), (6, 160, 1)],
    *[(6, 320, 1)],
]
LOW_LEVEL_BLOCK = 3  # in `features`: the last block at stride 4


class MobileNetV2(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 24, H/4, W/4], features [B, 320, H/output_stride, W/output_stride]`

    `width` multiplies all numbers of channels (slim's `depth_multiplier`). With `wide_tap` the low-level features are
    the 144 channels inside their block, after the depthwise convolution, as in the official decoder.
    """

    def __init__(self, *, output_stride: int, width: float = 1.0, wide_tap: bool = False):
        super().__init__()
        self.output_stride, self.wide_tap = output_stride, wide_tap
        in_channels = scaled(32, width)
        units: list[nn.Module] = [ConvBNReLU6(3, in_channels, stride=2)]
        plan = atrous_plan([stride for _, _, stride in BLOCKS], output_stride)
        for (expansion, channels, _), (stride, rate) in zip(BLOCKS, plan, strict=True):
            out_channels = scaled(channels, width)
            hidden = in_channels if expansion == 1 else round_to_eight(in_channels * expansion)
            block = InvertedResidual(in_channels, out_channels, hidden=hidden, stride=stride)
            depthwise = block.conv[-3]
            if rate > 1:
                depthwise[0] = converted(depthwise[0], AtrousDepthwiseConv2d)
            dilate(depthwise[0], rate)
            units.append(block)
            in_channels = out_channels
        self.features = nn.Sequential(*units)
        block = self.features[LOW_LEVEL_BLOCK]
        self.low_level_channels = block.conv[-2].in_channels if wide_tap else block.out_channels
        self.out_channels = in_channels
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features[:LOW_LEVEL_BLOCK](image)  # [B, 24, H/4, W/4]
        block, rest = self.features[LOW_LEVEL_BLOCK], self.features[LOW_LEVEL_BLOCK + 1 :]
        if not self.wide_tap:
            low_level = block(features)  # [B, 24, H/4, W/4]
            return low_level, rest(low_level)
        low_level = block.conv[:-2](features)  # expansion and depthwise convolution: [B, 144, H/4, W/4]
        return low_level, rest(features + block.conv[-2:](low_level))


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded, at least 1."""
    return max(1, int(channels * width + 0.5))


def round_to_eight(channels: int) -> int:
    """The multiple of 8 nearest to `channels`, but at least 90% of it (slim's `_make_divisible`)."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8
