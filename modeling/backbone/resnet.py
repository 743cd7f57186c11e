"""ResNet-50 and ResNet-101 in torchvision's form, with atrous rates in place of the last strides.

The names are torchvision's, so its ImageNet weights load without renaming.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from modeling.backbone.blocks import BasicBlock, Bottleneck
from modeling.layers import dilate, initialize, projection

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # the number of units in layer1..4
# output stride -> (stride, rate) of layer3 and layer4. The new rate also holds for the unit that loses its stride
ATROUS = {8: ((1, 2), (1, 4)), 16: ((2, 1), (1, 2)), 32: ((2, 1), (2, 1))}
MULTI_GRID = (1, 2, 4)  # DeepLabV3 (arXiv 1706.05587), section 3.2.1


class ResNet(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 256, H/4, W/4], features [B, 2048, H/output_stride, W/output_stride]`

    `depth`: 50 or 101. `multi_grid`: multiply the rates of
    layer4's three units by 1, 2, 4.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(self, depth: int, *, output_stride: int, multi_grid: bool = False):
        super().__init__()
        self.output_stride, depths = output_stride, DEPTHS[depth]
        (stride3, rate3), (stride4, rate4) = ATROUS[output_stride]
        grid = MULTI_GRID if multi_grid else (1, 1, 1)
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = make_layer(Bottleneck, 64, 64, rates=[1] * depths[0])
        self.layer2 = make_layer(Bottleneck, 256, 128, stride=2, rates=[1] * depths[1])
        self.layer3 = make_layer(Bottleneck, 512, 256, stride=stride3, rates=[rate3] * depths[2])
        self.layer4 = make_layer(Bottleneck, 1024, 512, stride=stride4, rates=[rate4 * factor for factor in grid])
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.maxpool(self.relu(self.bn1(self.conv1(image))))  # [B, 64, H/4, W/4]
        low_level = self.layer1(stem)  # [B, 256, H/4, W/4]
        features = self.layer4(self.layer3(self.layer2(low_level)))  # [B, 2048, H/output_stride, W/output_stride]
        return low_level, features


def make_layer(
    block: type[BasicBlock | Bottleneck], in_channels: int, planes: int, *, stride: int = 1, rates: Sequence[int]
) -> nn.Sequential:
    """Residual units, one for each atrous rate; the first one changes the stride and the number of channels."""
    out_channels = planes * block.expansion
    has_projection = stride != 1 or in_channels != out_channels
    shortcut = projection(in_channels, out_channels, stride) if has_projection else None
    units = [block(in_channels, planes, stride, shortcut)]
    units += [block(out_channels, planes) for _ in rates[1:]]
    for unit, rate in zip(units, rates, strict=True):
        for layer in unit.children():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                dilate(layer, rate)
    return nn.Sequential(*units)
