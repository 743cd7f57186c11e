"""Aligned Xception 41, 65 and 71 (DeepLabV3+ section 3.2), graph for graph as the official `core/xception.py`."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from modeling.backbone.spec import BackboneSpec
from modeling.layers import ConvBNReLU, SeparableConvBNReLU, atrous_plan, initialize

# (channels, stride) of the entry flow's blocks, number of middle units, block of the low-level tap
ENTRY = [(128, 2), (256, 2), (728, 2)]
ENTRY_71 = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
VARIANTS = {41: (ENTRY, 8, 1), 65: (ENTRY, 16, 1), 71: (ENTRY_71, 16, 2)}
EPSILON = 1e-3  # of the backbone's batch norms; the head's is 1e-5


class SeparableConv(nn.Sequential):
    """3x3 depthwise, BN, 1x1, BN: no activation of its own. The depthwise half carries stride and rate."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, rate: int):
        super().__init__(
            nn.Conv2d(in_channels, in_channels, 3, stride, rate, rate, groups=in_channels, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class XceptionBlock(nn.Module):
    """Three separable convolutions, ReLU before each, beside a shortcut from the input as it came; stride in the third.

    `channels` has four entries: into the block and out of each convolution. The shortcut is a 1x1 convolution where
    stride or channels of the classification network change, else the identity.
    """

    def __init__(self, channels: tuple[int, int, int, int], *, stride: int, rate: int, has_projection: bool):
        super().__init__()
        pairs = zip(channels, channels[1:], (1, 1, stride), strict=False)
        self.convs = nn.ModuleList(SeparableConv(i, o, stride=s, rate=rate) for i, o, s in pairs)
        self.shortcut = nn.Identity()
        if has_projection:
            projection = nn.Conv2d(channels[0], channels[3], 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels[3]))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """-> the block's output, and what its second convolution gives: the decoder's low-level features."""
        maps, second = features, None
        for index, conv in enumerate(self.convs):
            maps = F.relu(maps)  # not in place: it would reach the shortcut and the tap
            for layer in conv:  # one by one, so that each map goes when the next is there: they are the largest
                maps = layer(maps)
            if index == 1:
                second = maps
        return self.shortcut(features) + maps, second


class Xception(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, 256, H/4, W/4], features [B, 2048, H/output_stride, W/output_stride]`

    The low-level features are those of `entry_flow/block2` (block3 in 71) after its second separable convolution,
    before any ReLU.
    """

    low_level_channels = 256
    out_channels = 2048

    def __init__(self, depth: int, *, output_stride: int):
        super().__init__()
        self.output_stride = output_stride
        entry, num_middle, self.tap = VARIANTS[depth]
        plan = iter(atrous_plan([s for _, s in entry] + [1] * num_middle + [2, 1], output_stride))
        self.stem = nn.Sequential(ConvBNReLU(3, 32, 3, stride=2), ConvBNReLU(32, 64, 3))
        self.entry, in_channels = nn.ModuleList(), 64
        for out_channels, _ in entry:
            self.entry.append(make_block((in_channels, *[out_channels] * 3), next(plan), has_projection=True))
            in_channels = out_channels
        middle = [make_block((728,) * 4, next(plan), has_projection=False) for _ in range(num_middle)]
        self.middle = nn.ModuleList(middle)
        self.exit = make_block((728, 728, 1024, 1024), next(plan), has_projection=True)
        _, rate = next(plan)
        # Here alone ReLU follows both halves of each separable convolution, and there is no shortcut
        widths = ((1024, 1536), (1536, 1536), (1536, 2048))
        self.final = nn.Sequential(*[SeparableConvBNReLU(i, o, rate=rate) for i, o in widths])
        initialize(self)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = EPSILON

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, low_level = self.stem(image), None
        for index, block in enumerate(self.entry):
            features, second = block(features)
            if index == self.tap:
                low_level = second
        for block in (*self.middle, self.exit):
            features, _ = block(features)
        return low_level, self.final(features)


def make_block(channels: tuple, stride_and_rate: tuple[int, int], *, has_projection: bool) -> XceptionBlock:
    stride, rate = stride_and_rate
    return XceptionBlock(channels, stride=stride, rate=rate, has_projection=has_projection)


MODELS = "http://download.tensorflow.org/models"
ARCHIVES = {
    "xception": (65, "deeplabv3_xception_2018_01_04"),
    "xception41": (41, "xception_41_2018_05_09"),
    "xception71": (71, "xception_71_2018_05_09"),
}
BACKBONES = {
    name: BackboneSpec(build=partial(Xception, depth), weight_decay=4e-5, imagenet=f"{MODELS}/{archive}.tar.gz")
    for name, (depth, archive) in ARCHIVES.items()
}
