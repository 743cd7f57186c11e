"""Dilated residual networks DRN-D-22, 38, 54 and 105 (Yu, Koltun, Funkhouser, CVPR 2017), with the authors' names.

The network is defined at stride 8. At stride 16 layer5 takes stride 2, and the rates from there on halve.
"""

from functools import partial

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from modeling.backbone.spec import BackboneSpec
from modeling.layers import dilate, initialize

# block, numbers of units in layer3..6 (layers 1, 2, 7 and 8 are one plain convolution each)
VARIANTS = {
    22: (BasicBlock, (2, 2, 2, 2)),
    38: (BasicBlock, (3, 4, 6, 3)),
    54: (Bottleneck, (3, 4, 6, 3)),
    105: (Bottleneck, (3, 4, 23, 3)),
}
RATES = {8: (2, 4, 2), 16: (1, 2, 1)}  # of layer5, layer6, layer7


class DRN(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, C, H/4, W/4], features [B, 512, H/output_stride, W/output_stride]`

    C is 64 for DRN-D-22 and 38, 256 for 54 and 105.
    """

    out_channels = 512

    def __init__(self, depth: int, *, output_stride: int):
        super().__init__()
        self.output_stride = output_stride
        block, units = VARIANTS[depth]
        wide = block.expansion
        rate5, rate6, rate7 = RATES[output_stride]
        self.low_level_channels = 64 * wide
        self.layer0 = plain(3, 16, kernel_size=7)
        self.layer1 = plain(16, 16)
        self.layer2 = plain(16, 32, stride=2)
        self.layer3 = make_layer(block, 32, 64, units[0], stride=2)
        self.layer4 = make_layer(block, 64 * wide, 128, units[1], stride=2)
        self.layer5 = make_layer(block, 128 * wide, 256, units[2], stride=output_stride // 8, rate=rate5)
        self.layer6 = make_layer(block, 256 * wide, 512, units[3], rate=rate6)
        self.layer7 = plain(512 * wide, 512, rate=rate7)
        self.layer8 = plain(512, 512)
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        low_level = self.layer3(self.layer2(self.layer1(self.layer0(image))))
        features = self.layer6(self.layer5(self.layer4(low_level)))
        return low_level, self.layer8(self.layer7(features))  # the last two undo the gridding of the rates before


def plain(
    in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1, rate: int = 1
) -> nn.Sequential:
    padding = rate * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def make_layer(
    block: type, in_channels: int, planes: int, num_units: int, *, stride: int = 1, rate: int = 1
) -> nn.Sequential:
    """Residual units at one rate; the first one changes the stride and the number of channels."""
    out_channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    units = [block(in_channels, planes, stride, shortcut)]
    units += [block(out_channels, planes) for _ in range(num_units - 1)]
    for conv in (layer for unit in units for layer in unit.children()):
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            dilate(conv, rate)
    return nn.Sequential(*units)


FILES = {
    "drn": (54, "drn_d_54-0e0534ff"),
    "drn22": (22, "drn_d_22-4bd2f8ea"),
    "drn38": (38, "drn_d_38-eebb45f0"),
    "drn105": (105, "drn_d_105-12b40979"),
}
BACKBONES = {
    name: BackboneSpec(
        build=partial(DRN, depth),
        output_strides=(8, 16),
        default_output_stride=8,
        imagenet=f"http://dl.yf.io/drn/{file}.pth",
    )
    for name, (depth, file) in FILES.items()
}
