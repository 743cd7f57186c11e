"""What the table of backbones declares of each."""

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

TIMM = re.compile(r"timm/([\w.-]+)")
TENSORFLOW_MODELS = "http://download.tensorflow.org/models"  # Google's released weights


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One named backbone.

    `network`: "module.Class" in this folder; `depth`, or `timm`, a name there: its first argument, if it takes one.
    `options`: the fields of `Architecture` that it takes besides the stride. `imagenet`: the address of its ImageNet
    weights, or None.
    """

    network: str
    depth: int | None = None
    timm: str | None = None
    output_strides: tuple[int, ...] = (8, 16, 32)
    default_output_stride: int = 16
    weight_decay: float = 1e-4
    options: tuple[str, ...] = ()
    imagenet: str | None = None

    def build(self, *, output_stride: int, **options: object) -> "nn.Module":
        """A module with `low_level_channels`, `out_channels` and `output_stride`, whose forward is
        `image [B, 3, H, W] -> low-level [B, C, H/4, W/4], features [B, out_channels, H/stride, W/stride]`.
        """
        module, _, name = self.network.rpartition(".")
        network = getattr(import_module(f"{__package__}.{module}"), name)
        first = [value for value in (self.depth, self.timm) if value is not None]
        return network(*first, output_stride=output_stride, **options)


class Backbones(dict[str, BackboneSpec]):
    """A table that also has timm/NAME for any NAME; which of them exist, timm says when the network is built."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(TIMM.fullmatch(name)))

    def __missing__(self, name: str) -> BackboneSpec:
        if name not in self:
            raise KeyError(name)
        return BackboneSpec(network="from_timm.TimmBackbone", timm=TIMM.fullmatch(name)[1])
