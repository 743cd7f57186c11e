"""Dilated residual networks DRN-D-22, 38, 54 and 105 (Yu, Koltun, Funkhouser, CVPR 2017), with the authors' names.

The paper defines them at stride 8. At stride 16, layer5 has stride 2, and the rates of layer5 to layer7 halve.
"""

from torch import Tensor, nn

from modeling.backbone.blocks import BasicBlock, Bottleneck
from modeling.backbone.resnet import make_layer
from modeling.layers import ConvBNReLU, initialize

# depth -> the block, and the number of blocks in layer3..6; the other layers are one convolution each
LAYERS = {
    22: (BasicBlock, (2, 2, 2, 2)),
    38: (BasicBlock, (3, 4, 6, 3)),
    54: (Bottleneck, (3, 4, 6, 3)),
    105: (Bottleneck, (3, 4, 23, 3)),
}
RATES = {8: (2, 4, 2), 16: (1, 2, 1)}  # output stride -> atrous rates of layer5, layer6, layer7


class DRN(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, C, H/4, W/4], features [B, 512, H/output_stride, W/output_stride]`

    `depth` is a key of LAYERS. C is 64 with BasicBlock, 256 with Bottleneck.
    """

    out_channels = 512

    def __init__(self, depth: int, *, output_stride: int):
        super().__init__()
        self.output_stride = output_stride
        block, depths = LAYERS[depth]
        expansion = block.expansion
        rate5, rate6, rate7 = RATES[output_stride]
        self.low_level_channels = 64 * expansion
        self.layer0 = ConvBNReLU(3, 16, 7)
        self.layer1 = ConvBNReLU(16, 16, 3)
        self.layer2 = ConvBNReLU(16, 32, 3, stride=2)
        self.layer3 = make_layer(block, 32, 64, stride=2, rates=[1] * depths[0])
        self.layer4 = make_layer(block, 64 * expansion, 128, stride=2, rates=[1] * depths[1])
        self.layer5 = make_layer(block, 128 * expansion, 256, stride=output_stride // 8, rates=[rate5] * depths[2])
        self.layer6 = make_layer(block, 256 * expansion, 512, rates=[rate6] * depths[3])
        self.layer7 = ConvBNReLU(512 * expansion, 512, 3, rate=rate7)
        self.layer8 = ConvBNReLU(512, 512, 3)
        initialize(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        stem = self.layer2(self.layer1(self.layer0(image)))  # [B, 32, H/2, W/2]
        low_level = self.layer3(stem)  # [B, C, H/4, W/4]
        features = self.layer6(self.layer5(self.layer4(low_level)))  # [B, 8C, H/output_stride, W/output_stride]
        features = self.layer8(self.layer7(features))  # degridding: [B, 512, H/output_stride, W/output_stride]
        return low_level, features
