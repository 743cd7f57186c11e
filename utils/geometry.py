"""The geometry of network and scoring alike: corner pixels keep their places (`align_corners=True`)."""

import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear: [B, C, h, w] -> [B, C, *size]."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def scaled_side(side: int, scale: float) -> int:
    """The official `scale_dimension`: the first and the last pixel keep their places."""
    return int((side - 1) * scale + 1)
