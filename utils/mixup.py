"""MixUp within a micro-batch: Zhang et al., arXiv 1710.09412, with the losses mixed instead of the labels."""

import torch
from torch import Tensor


def draw_share(alpha: float) -> float:
    """The share of an image's own pixels, from Beta(alpha, alpha), by the random numbers of the CPU."""
    return float(torch.distributions.Beta(alpha, alpha).sample())


def mix(images: Tensor, share: float) -> Tensor:
    """`share` of each image plus the rest of the one before it; float [B, ...]. A single image stays as it is."""
    return torch.lerp(images.roll(1, 0), images, share)
