"""`Architecture`: the one definition of a network, used by flags, checkpoints, released weights and the cost table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modeling.backbone import BACKBONES
from utils.errors import UserError

if TYPE_CHECKING:
    from modeling.deeplab import DeepLab

HEADS = ("separable", "standard", "lite", "lite-decoder")
BACKBONE_OPTIONS = ("multi_grid", "width", "wide_tap")
# key in a checkpoint's config, and name of the flag -> field
CONFIG_KEYS = {"out_stride": "output_stride"} | {
    name: name for name in ("backbone", "head", *BACKBONE_OPTIONS, "dropout")
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A DeepLabV3+ network; `build` makes it. No weight depends on `output_stride` or `dropout`.

    `output_stride`: 8, 16 or 32; None takes the backbone's default.
    `head`: "separable" is the paper's final model, ASPP and decoder of depthwise separable convolutions; "standard" has
    full convolutions; "lite" is image pooling and a 1x1 convolution without decoder; "lite-decoder" adds the decoder.
    `multi_grid`: atrous rates times 1, 2, 4 in the last layer of a ResNet. `width`: factor on MobileNet's channels.
    `wide_tap`: MobileNet's decoder takes the 144 low-level channels of the official code instead of 24.
    `dropout`: probability after ASPP.
    Raises UserError for an unknown name, and for a stride or option that the backbone does not have.
    """

    backbone: str
    num_classes: int
    output_stride: int | None = None
    head: str = "separable"
    multi_grid: bool = False
    width: float = 1.0
    wide_tap: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise UserError(f"unknown backbone {self.backbone!r}: choose one of {', '.join(BACKBONES)}, timm/NAME")
        if self.head not in HEADS:
            raise UserError(f"unknown head {self.head!r}: choose one of {', '.join(HEADS)}")
        spec = BACKBONES[self.backbone]
        if self.output_stride is None:
            object.__setattr__(self, "output_stride", spec.default_output_stride)  # the dataclass is frozen
        if self.output_stride not in spec.output_strides:
            choices = ", ".join(map(str, spec.output_strides))
            raise UserError(f"{self.backbone} has no output stride {self.output_stride}: choose one of {choices}")
        for name in BACKBONE_OPTIONS:
            is_default = getattr(self, name) == getattr(Architecture, name)
            if name not in spec.options and not is_default:
                owners = ", ".join(key for key, other in BACKBONES.items() if name in other.options)
                raise UserError(f"`{name}` is defined for {owners} alone: leave it out for {self.backbone}")

    def build(self) -> "DeepLab":
        """The network with initial weights, on the default device."""
        # They import torch, and a command tests its flags by this class before
        from modeling.aspp import ASPP, aspp_rates
        from modeling.decoder import Decoder, LiteDecoder
        from modeling.deeplab import DeepLab

        spec = BACKBONES[self.backbone]
        options = {name: getattr(self, name) for name in spec.options}
        backbone = spec.build(output_stride=self.output_stride, **options)
        is_separable = self.head != "standard"
        rates = () if self.head in ("lite", "lite-decoder") else aspp_rates(self.output_stride)
        aspp = ASPP(backbone.out_channels, rates=rates, is_separable=is_separable, dropout=self.dropout)
        if self.head == "lite":
            decoder = LiteDecoder(aspp.out_channels, self.num_classes)
        else:
            low_level_channels = backbone.low_level_channels
            decoder = Decoder(aspp.out_channels, low_level_channels, self.num_classes, is_separable=is_separable)
        return DeepLab(backbone, aspp, decoder)

    def to_config(self) -> dict:
        """The entries of a checkpoint's `config`, by flag names. `num_classes` is the length of its `classes`."""
        return {key: getattr(self, name) for key, name in CONFIG_KEYS.items()}

    @classmethod
    def from_config(cls, config: Mapping, *, num_classes: int) -> "Architecture":
        """From the flags of a command or the `config` of a checkpoint; missing entries have their default."""
        known = {name: config[key] for key, name in CONFIG_KEYS.items() if key in config}
        return cls(num_classes=num_classes, **known)
