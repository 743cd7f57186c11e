"""The geometry shared by network and scoring: resizing keeps the corner pixels in place (`align_corners=True`)."""

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size], bilinear."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def scaled_side(side: int, scale: float) -> int:
    """`side` pixels at `scale`, with the first and the last pixel in place: the official code's `scale_dimension`."""
    return int((side - 1) * scale + 1)
