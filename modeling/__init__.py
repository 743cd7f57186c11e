"""`build_model`: a whole DeepLabV3+ from the names of its parts."""

from typing import TYPE_CHECKING

from modeling.architecture import HEADS, Architecture
from modeling.backbone import BACKBONES

if TYPE_CHECKING:
    from modeling.deeplab import DeepLab

__all__ = ["BACKBONES", "HEADS", "Architecture", "DeepLab", "build_model"]


def build_model(
    backbone: str,
    num_classes: int,
    *,
    output_stride: int | None = 16,
    head: str = "separable",
    backbone_weights: str = "none",
    multi_grid: bool = False,
    dropout: float = 0.1,
    width: float = 1.0,
    wide_tap: bool = False,
    partial_weights: bool = False,
) -> "DeepLab":
    """Build the network that `Architecture` describes with these arguments, and load weights into its backbone.

    `backbone_weights`: none, imagenet, a name in `modeling.pretrained.zoo`, or a file.
    Raises UserError for an invalid argument, and for weights that do not fill the backbone (unless `partial_weights`).
    """
    architecture = Architecture(
        backbone=backbone, num_classes=num_classes, output_stride=output_stride, head=head, multi_grid=multi_grid,
        dropout=dropout, width=width, wide_tap=wide_tap,
    )  # fmt: skip
    model = architecture.build()
    if backbone_weights != "none":
        from modeling.pretrained.load import load_backbone_weights  # needs torch, as `DeepLab` below

        load_backbone_weights(model, backbone, backbone_weights, is_partial=partial_weights)
    return model


def __getattr__(name: str) -> object:
    """`DeepLab` on demand: the commands read names and limits of networks here before they import torch."""
    if name == "DeepLab":
        from modeling.deeplab import DeepLab

        return DeepLab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
