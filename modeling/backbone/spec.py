"""What a backbone's file declares of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

TENSORFLOW_MODELS = "http://download.tensorflow.org/models"  # Google's released weights


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One named backbone.

    `build(output_stride=..., **options)` returns a module with `low_level_channels`, `out_channels` and `output_stride`
    whose forward is `image [B, 3, H, W] -> low-level [B, C, H/4, W/4], features [B, out_channels, H/stride, W/stride]`.
    `options`: the fields of `Architecture` that `build` takes besides the stride. `imagenet`: the address of its
    ImageNet weights, or None.
    """

    build: Callable[..., nn.Module]
    output_strides: tuple[int, ...] = (8, 16, 32)
    default_output_stride: int = 16
    weight_decay: float = 1e-4
    options: tuple[str, ...] = ()
    imagenet: str | None = None
