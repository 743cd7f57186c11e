"""The decoder (DeepLabV3+ section 3.1, Tables 1 and 2): fuse low-level features with ASPP's output, and classify."""

import torch
from torch import Tensor, nn

from modeling.layers import ConvBNReLU, conv3x3, init_depthwise_identity, initialize
from utils.geometry import resize

LOW_LEVEL_CHANNELS = 48  # Table 1
WIDTH = 256  # Table 2


class Decoder(nn.Module):
    """`features [B, in_channels, h, w], low_level [B, low_level_channels, H/4, W/4] -> logits [B, K, H/4, W/4]`"""

    def __init__(self, in_channels: int, low_level_channels: int, num_classes: int, *, is_separable: bool):
        super().__init__()
        self.project = ConvBNReLU(low_level_channels, LOW_LEVEL_CHANNELS)
        self.refine = nn.Sequential(
            conv3x3(in_channels + LOW_LEVEL_CHANNELS, WIDTH, is_separable=is_separable),
            conv3x3(WIDTH, WIDTH, is_separable=is_separable),
        )
        self.classifier = make_classifier(WIDTH, num_classes)
        initialize(self.project)
        initialize(self.refine)
        init_depthwise_identity(self.refine)

    def forward(self, features: Tensor, low_level: Tensor) -> Tensor:
        low_level = self.project(low_level)  # [B, 48, H/4, W/4]
        features = resize(features, low_level.shape[-2:])  # [B, in_channels, H/4, W/4]
        fused = torch.cat([features, low_level], dim=1)  # [B, in_channels + 48, H/4, W/4]
        return self.classifier(self.refine(fused))  # [B, K, H/4, W/4]


class LiteDecoder(nn.Module):
    """`features [B, in_channels, h, w] -> logits [B, K, h, w]`

    The classifier alone, as in the official MobileNetV2 model; low-level features are not used.
    """

    def __init__(self, in_channels: int, num_classes: int):
        super().__init__()
        self.classifier = make_classifier(in_channels, num_classes)

    def forward(self, features: Tensor, low_level: Tensor) -> Tensor:
        return self.classifier(features)


def make_classifier(in_channels: int, num_classes: int) -> nn.Conv2d:
    """A 1x1 convolution to logits, initialized as in the official `model.py`."""
    conv = nn.Conv2d(in_channels, num_classes, 1)
    nn.init.trunc_normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return conv
