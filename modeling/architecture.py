"""Everything that shapes one network: flags, checkpoints, the zoo and the cost table all use this one definition."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

from modeling.aspp import ASPP, aspp_rates
from modeling.backbone import BACKBONES
from modeling.decoder import Decoder, LiteDecoder
from modeling.deeplab import DeepLab
from utils.errors import UserError

HEADS = ("separable", "standard", "lite", "lite-decoder")
BACKBONE_OPTIONS = ("multi_grid", "width", "wide_tap")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A DeepLabV3+ network; `build` makes it. No weight depends on `output_stride` or `dropout`.

    `output_stride`: 8, 16 or 32; None takes the backbone's default.
    `head`: depthwise-separable ASPP and decoder (separable: the paper's final model), full convolutions (standard),
    image pooling and a 1x1 convolution without decoder (lite), or these with the separable decoder (lite-decoder).
    `multi_grid`: atrous rates x 1, 2, 4 in the last layer of a ResNet. `width` multiplies the channels of MobileNet;
    `wide_tap` gives its decoder the 144 low-level channels of the official code. `dropout`: probability after ASPP.
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
            raise UserError(f"unknown backbone {self.backbone!r}: choose one of {', '.join(BACKBONES)}")
        if self.head not in HEADS:
            raise UserError(f"unknown head {self.head!r}: choose one of {', '.join(HEADS)}")
        spec = BACKBONES[self.backbone]
        if self.output_stride is None:
            object.__setattr__(self, "output_stride", spec.default_output_stride)  # the way of a frozen dataclass
        if self.output_stride not in spec.output_strides:
            choices = ", ".join(map(str, spec.output_strides))
            raise UserError(f"{self.backbone} has no output stride {self.output_stride}: choose one of {choices}")
        for name in BACKBONE_OPTIONS:
            if name not in spec.options and getattr(self, name) != DEFAULTS[name]:
                owners = ", ".join(key for key, other in BACKBONES.items() if name in other.options)
                raise UserError(f"`{name}` is defined for {owners} alone: leave it out for {self.backbone}")

    def build(self) -> DeepLab:
        """The network with fresh weights, on the default device."""
        spec = BACKBONES[self.backbone]
        options = {name: getattr(self, name) for name in spec.options}
        backbone = spec.build(output_stride=self.output_stride, **options)
        is_separable = self.head != "standard"
        rates = () if self.head in ("lite", "lite-decoder") else aspp_rates(self.output_stride)
        aspp = ASPP(backbone.out_channels, rates=rates, is_separable=is_separable, dropout=self.dropout)
        if self.head == "lite":
            decoder = LiteDecoder(aspp.out_channels, self.num_classes)
        else:
            decoder = Decoder(
                aspp.out_channels, backbone.low_level_channels, self.num_classes, is_separable=is_separable
            )
        return DeepLab(backbone, aspp, decoder)

    def to_config(self) -> dict:
        """What a checkpoint's `config` holds of it, under the names of the flags; the classes are stored beside it."""
        return {key: getattr(self, name) for key, name in CONFIG_KEYS.items()}

    @classmethod
    def from_config(cls, config: Mapping, *, num_classes: int) -> "Architecture":
        """From the flags of a command or the `config` of a checkpoint; what it does not hold has its default."""
        known = {name: config[key] for key, name in CONFIG_KEYS.items() if key in config}
        return cls(num_classes=num_classes, **known)


DEFAULTS = {field.name: field.default for field in fields(Architecture) if field.default is not MISSING}
# name of the flag, and key in a checkpoint's config -> field
CONFIG_KEYS = {"out_stride": "output_stride"} | {
    name: name for name in ("backbone", "head", *BACKBONE_OPTIONS, "dropout")
}
