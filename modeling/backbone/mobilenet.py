"""MobileNetV2 of torchvision's blocks, with the atrous rates of slim's `mobilenet_base`.

The names are torchvision's, so its ImageNet weights load key for key. The 1280-channel convolution of the classifier is
left out, as in the official DeepLab.
"""

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.ops.misc import Conv2dNormActivation

from modeling.layers import atrous_plan, dilate, initialize

# (expansion, channels, stride) of the 17 blocks: Table 2 of arXiv 1801.04381, a row a block
BLOCKS = [
    *[(1, 16, 1)],
    *[(6, 24, 2), (6, 24, 1)],
    *[(6, 32, 2), (6, 32, 1), (6, 32, 1)],
    *[(6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)],
    *[(6, 96, 1), (6, 96, 1), (6, 96, 1)],
    *[(6, 160, 2), (6, 160, 1), (6, 160, 1)],
    *[(6, 320, 1)],
]
TAP = 4  # the stem and three blocks: the last map at stride 4


class MobileNetV2(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 24, H/4, W/4], features [B, 320, H/output_stride, W/output_stride]`"""

    low_level_channels = 24
    out_channels = 320

    def __init__(self, *, output_stride: int):
        super().__init__()
        self.output_stride = output_stride
        units: list[nn.Module] = [Conv2dNormActivation(3, 32, stride=2, activation_layer=nn.ReLU6)]
        plan = atrous_plan([stride for _, _, stride in BLOCKS], output_stride)
        in_channels = 32
        for (expansion, channels, _), (stride, rate) in zip(BLOCKS, plan, strict=True):
            block = InvertedResidual(in_channels, channels, stride, expansion)
            dilate(block.conv[-3][0], rate)  # the depthwise convolution
            units.append(block)
            in_channels = channels
        self.features = nn.Sequential(*units)
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        low_level = self.features[:TAP](image)
        return low_level, self.features[TAP:](low_level)
