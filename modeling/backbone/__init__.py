"""Backbones. Each publishes `low_level_channels`, `out_channels` and `output_stride`, and gives two maps."""

from errors import UserError
from modeling.backbone.drn import DRN
from modeling.backbone.mobilenet import MobileNetV2
from modeling.backbone.resnet import ResNet
from modeling.backbone.resnet_beta import ResNetBeta
from modeling.backbone.xception import Xception

# name -> (network, its variant, the output strides it has)
BACKBONES = {
    "resnet": (ResNet, (3, 4, 23, 3), (8, 16, 32)),
    "resnet50": (ResNet, (3, 4, 6, 3), (8, 16, 32)),
    "resnet_beta": (ResNetBeta, (3, 4, 23, 3), (8, 16, 32)),
    "resnet50_beta": (ResNetBeta, (3, 4, 6, 3), (8, 16, 32)),
    "xception": (Xception, 65, (8, 16, 32)),
    "xception41": (Xception, 41, (8, 16, 32)),
    "xception71": (Xception, 71, (8, 16, 32)),
    "mobilenet": (MobileNetV2, None, (8, 16, 32)),
    "drn": (DRN, 54, (8, 16)),
    "drn22": (DRN, 22, (8, 16)),
    "drn38": (DRN, 38, (8, 16)),
    "drn105": (DRN, 105, (8, 16)),
}


def default_output_stride(name: str) -> int:
    """DRN is defined at stride 8; the others train at 16."""
    return 8 if name.startswith("drn") else 16


def build_backbone(
    name: str, *, output_stride: int, multi_grid: bool = False, width: float = 1.0, wide_tap: bool = False
):
    """The named backbone with fresh weights. Raises UserError for what it does not have, naming the choices."""
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}: choose one of {', '.join(BACKBONES)}")
    network, variant, strides = BACKBONES[name]
    if output_stride not in strides:
        raise UserError(f"{name} has no output stride {output_stride}: choose one of {', '.join(map(str, strides))}")
    if network is not MobileNetV2 and (width != 1 or wide_tap):
        raise UserError(f"--width and --wide-tap are defined for mobilenet alone: drop them for {name}")
    if network in (ResNet, ResNetBeta):
        return network(variant, output_stride=output_stride, multi_grid=multi_grid)
    if multi_grid:
        raise UserError(f"multi-grid is defined for ResNet alone: drop it for {name}")
    if network is MobileNetV2:
        return MobileNetV2(output_stride=output_stride, width=width, wide_tap=wide_tap)
    return network(variant, output_stride=output_stride)
