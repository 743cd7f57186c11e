"""The units of ResNet and MobileNetV2, with torchvision's names, so that its weights load without renaming.

Not torchvision's own: to import it takes most of the time that torch itself takes, as it imports torch.compile's parts.
"""

from torch import Tensor, nn

from modeling.cpu_layers import ReLU6, norm_relu_conv


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., CVPR 2016, figure 5 left). The first one has the stride.

    `downsample`: the shortcut where the size or the channels change; None: the identity.
    """

    expansion = 1  # output channels over `planes`

    def __init__(self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(features)))
        residual = self.bn2(self.conv2(residual))
        residual += features if self.downsample is None else self.downsample(features)
        return self.relu(residual)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a shortcut (He et al., CVPR 2016, figure 5 right). The 3x3 one has the stride.

    `downsample`: the shortcut where the size or the channels change; None: the identity.
    """

    expansion = 4  # output channels over `planes`

    def __init__(self, in_channels: int, planes: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, features: Tensor) -> Tensor:
        residual = norm_relu_conv(self.bn1, self.conv2, self.conv1(features))
        residual = self.bn3(norm_relu_conv(self.bn2, self.conv3, residual))
        residual += features if self.downsample is None else self.downsample(features)
        return self.relu(residual)


class ConvBNReLU6(nn.Sequential):
    """3x3 or 1x1 convolution, batch norm, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, stride: int = 1, groups: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """1x1 expansion to `hidden` channels, 3x3 depthwise with the stride, linear 1x1 (arXiv 1801.04381, figure 4).

    No expansion if `hidden` equals `in_channels`; a shortcut if size and channels stay.
    """

    def __init__(self, in_channels: int, out_channels: int, *, hidden: int, stride: int):
        super().__init__()
        self.has_shortcut = stride == 1 and in_channels == out_channels
        expansion = [ConvBNReLU6(in_channels, hidden, 1)] if hidden != in_channels else []
        self.conv = nn.Sequential(
            *expansion,
            ConvBNReLU6(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.out_channels = out_channels

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv(features) if self.has_shortcut else self.conv(features)
