"""ResNet-v1-beta 50 and 101, graph for graph as the official `core/resnet_v1_beta.py`: the paper's ResNet.

Three 3x3 convolutions are the stem, and the stride of a block sits in its last unit, where torchvision has it in the
first.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from modeling.backbone.resnet import MULTI_GRID
from modeling.backbone.spec import BackboneSpec
from modeling.layers import ConvBNReLU, atrous_plan, dilate, initialize


class ResNetBeta(nn.Module):
    """`depths` are the numbers of units in layer1..4: (3, 4, 6, 3) or (3, 4, 23, 3).

    `image [B, 3, H, W] -> low-level [B, 256, H/4, W/4], features [B, 2048, H/output_stride, W/output_stride]`
    The low-level features are the residual of layer1's second unit, before it is added.
    """

    low_level_channels = 4 * 64
    out_channels = 4 * 512

    def __init__(self, depths: tuple[int, int, int, int], *, output_stride: int, multi_grid: bool = False):
        super().__init__()
        self.output_stride = output_stride
        strides = [stride for depth in depths[:3] for stride in [1] * (depth - 1) + [2]] + [1] * depths[3]
        plan = iter(atrous_plan(strides, output_stride, stem_stride=4))
        grids = [[1] * depth for depth in depths[:3]] + [list(MULTI_GRID) if multi_grid else [1] * depths[3]]
        self.stem = nn.Sequential(
            ConvBNReLU(3, 64, 3, stride=2), ConvBNReLU(64, 64, 3), ConvBNReLU(64, 128, 3)
        )  # [B, 128, H/2, W/2]
        in_channels = 128
        for number, grid in enumerate(grids, start=1):
            planes, units = 32 * 2**number, []
            for factor in grid:
                units.append(make_unit(in_channels, planes, next(plan), factor))
                in_channels = planes * Bottleneck.expansion
            self.add_module(f"layer{number}", nn.Sequential(*units))
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layer1[0](max_pool_same(self.stem(image)))
        low_level = residual(self.layer1[1], features)
        features = self.layer1[2](F.relu(features + low_level))
        return low_level, self.layer4(self.layer3(self.layer2(features)))


def make_unit(in_channels: int, planes: int, stride_and_rate: tuple[int, int], factor: int) -> Bottleneck:
    """A bottleneck. Where channels change, its shortcut is a 1x1 convolution, else every `stride`th pixel."""
    (stride, rate), out_channels = stride_and_rate, planes * Bottleneck.expansion
    shortcut = nn.MaxPool2d(1, stride) if stride > 1 else None
    if in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    unit = Bottleneck(in_channels, planes, stride, shortcut)
    dilate(unit.conv2, rate * factor)
    return unit


def residual(unit: Bottleneck, features: Tensor) -> Tensor:
    """What a unit adds to its shortcut."""
    features = unit.relu(unit.bn1(unit.conv1(features)))
    features = unit.relu(unit.bn2(unit.conv2(features)))
    return unit.bn3(unit.conv3(features))


def max_pool_same(features: Tensor) -> Tensor:
    """3x3 at stride 2, padded as TensorFlow's SAME: on even sides right and bottom alone. Zeros: they follow a ReLU."""
    height, width = features.shape[-2:]
    return F.max_pool2d(F.pad(features, (width % 2, 1, height % 2, 1)), 3, 2)


MODELS = "http://download.tensorflow.org/models"
BACKBONES = {
    "resnet_beta": BackboneSpec(
        build=partial(ResNetBeta, (3, 4, 23, 3)),
        options=("multi_grid",),
        imagenet=f"{MODELS}/resnet_v1_101_2018_05_04.tar.gz",
    ),
    "resnet50_beta": BackboneSpec(
        build=partial(ResNetBeta, (3, 4, 6, 3)),
        options=("multi_grid",),
        imagenet=f"{MODELS}/resnet_v1_50_2018_05_04.tar.gz",
    ),
}
