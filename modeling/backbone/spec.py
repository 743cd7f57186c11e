"""What the table of backbones declares of each."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

TENSORFLOW_MODELS = "http://download.tensorflow.org/models"  # Google's released weights


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One named backbone.

    `network`: "module.Class" in this folder; `depth`: its first argument, if it takes one. `options`: the fields of
    `Architecture` that it takes besides the stride. `imagenet`: the address of its ImageNet weights, or None.
    """

    network: str
    depth: int | None = None
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
        depth = () if self.depth is None else (self.depth,)
        return network(*depth, output_stride=output_stride, **options)
