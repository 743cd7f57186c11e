"""`build_model`: a whole DeepLabV3+ from the names of its parts."""

from errors import UserError
from modeling.aspp import ASPP, aspp_rates
from modeling.backbone import BACKBONES, build_backbone, default_output_stride
from modeling.decoder import Decoder, LiteDecoder
from modeling.deeplab import DeepLab

__all__ = ["BACKBONES", "HEADS", "DeepLab", "build_model", "default_output_stride"]

HEADS = ("separable", "standard", "lite", "lite-decoder")


def build_model(
    backbone: str,
    num_classes: int,
    *,
    output_stride: int = 16,
    head: str = "separable",
    backbone_weights: str = "none",
    multi_grid: bool = False,
    dropout: float = 0.1,
    width: float = 1.0,
    wide_tap: bool = False,
    partial_weights: bool = False,
) -> DeepLab:
    """DeepLabV3+ with `num_classes` outputs a pixel. No weight depends on `output_stride`.

    `head`: depthwise-separable ASPP and decoder (the paper's final model), full convolutions (standard), image pooling
    and 1x1 with no decoder (lite), or these with the separable decoder (lite-decoder).
    `backbone_weights`: none, imagenet, a name in `modeling.zoo`, or a file. `width` multiplies MobileNet's channels;
    `wide_tap` gives its decoder the 144 channels of the official code.
    Raises UserError for an unknown name, a stride the backbone does not have, or weights that do not fill the backbone
    (unless `partial_weights`).
    """
    if head not in HEADS:
        raise UserError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
    network = build_backbone(
        backbone, output_stride=output_stride, multi_grid=multi_grid, width=width, wide_tap=wide_tap
    )
    is_separable = head != "standard"
    rates = () if head in ("lite", "lite-decoder") else aspp_rates(output_stride)
    aspp = ASPP(network.out_channels, rates=rates, is_separable=is_separable, dropout=dropout)
    if head == "lite":
        decoder = LiteDecoder(aspp.out_channels, num_classes)
    else:
        decoder = Decoder(aspp.out_channels, network.low_level_channels, num_classes, is_separable=is_separable)
    model = DeepLab(network, aspp, decoder)
    if backbone_weights != "none":
        from modeling.weights import load_backbone_weights  # here, as python -m modeling.weights imports this module

        load_backbone_weights(model, backbone, backbone_weights, is_partial=partial_weights)
    return model
