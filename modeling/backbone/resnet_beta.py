"""ResNet-v1-beta 50 and 101, the paper's ResNet; the same graph as the official `core/resnet_v1_beta.py`.

The stem is three 3x3 convolutions, and a layer's stride is in its last unit (torchvision: in its first).
"""

from collections.abc import Iterable
from itertools import islice

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.backbone.blocks import Bottleneck
from modeling.backbone.resnet import DEPTHS, MULTI_GRID
from modeling.layers import ConvBNReLU, atrous_plan, dilate, initialize, projection


class ResNetBeta(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 256, H/4, W/4], features [B, 2048, H/output_stride, W/output_stride]`

    `depth`: 50 or 101. `multi_grid`: multiply the rates of layer4's three units by 1, 2, 4. The low-level features are
    the residual of layer1's second unit, before the sum with the shortcut.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(self, depth: int, *, output_stride: int, multi_grid: bool = False):
        super().__init__()
        self.output_stride, depths = output_stride, DEPTHS[depth]
        strides = [stride for depth in depths[:3] for stride in [1] * (depth - 1) + [2]] + [1] * depths[3]
        plan = iter(atrous_plan(strides, output_stride, stem_stride=4))
        grid = MULTI_GRID if multi_grid else (1, 1, 1)
        self.stem = nn.Sequential(ConvBNReLU(3, 64, 3, stride=2), ConvBNReLU(64, 64, 3), ConvBNReLU(64, 128, 3))
        self.layer1 = make_layer(128, 64, islice(plan, depths[0]))
        self.layer2 = make_layer(256, 128, islice(plan, depths[1]))
        self.layer3 = make_layer(512, 256, islice(plan, depths[2]))
        self.layer4 = make_layer(
            1024, 512, [(stride, rate * factor) for (stride, rate), factor in zip(plan, grid, strict=True)]
        )
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layer1[0](max_pool_same(self.stem(image)))  # [B, 256, H/4, W/4]
        low_level = residual(self.layer1[1], features)  # [B, 256, H/4, W/4]
        features = self.layer1[2](F.relu(features + low_level))
        features = self.layer4(self.layer3(self.layer2(features)))  # [B, 2048, H/output_stride, W/output_stride]
        return low_level, features


def make_layer(in_channels: int, planes: int, plan: Iterable[tuple[int, int]]) -> nn.Sequential:
    """Bottleneck units, one for each (stride, rate) of `plan`."""
    units, out_channels = [], planes * Bottleneck.expansion
    for stride, rate in plan:
        shortcut = None
        if in_channels != out_channels:
            shortcut = projection(in_channels, out_channels, stride)
        elif stride > 1:
            shortcut = nn.MaxPool2d(1, stride)  # every `stride`th pixel
        unit = Bottleneck(in_channels, planes, stride, shortcut)
        dilate(unit.conv2, rate)
        units.append(unit)
        in_channels = out_channels
    return nn.Sequential(*units)


def residual(unit: Bottleneck, features: Tensor) -> Tensor:
    """The output of a unit's third batch norm, which the unit adds to its shortcut."""
    features = unit.relu(unit.bn1(unit.conv1(features)))
    features = unit.relu(unit.bn2(unit.conv2(features)))
    return unit.bn3(unit.conv3(features))


def max_pool_same(features: Tensor) -> Tensor:
    """3x3 max pooling at stride 2 with TensorFlow's SAME padding. Zeros do, since `features` come from a ReLU.

    [B, C, H/2, W/2] -> [B, C, H/4, W/4]
    """
    height, width = features.shape[-2:]
    # Even sides are padded only right and bottom
    return F.max_pool2d(F.pad(features, (width % 2, 1, height % 2, 1)), 3, 2)
