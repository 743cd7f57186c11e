"""From a uint8 picture to logits of its own size."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Normalise:
    """uint8 [B, 3, H, W] -> float, with the mean and std (of values in 0..1) that a network's weights expect."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"):
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1) * 255

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


def whole_image_logits(model: nn.Module, image: Tensor, *, normalise: Callable, output_stride: int) -> Tensor:
    """uint8 [B, 3, H, W] -> logits [B, K, H, W] in one forward pass.

    The picture is padded right and bottom with the mean colour to k * output_stride + 1, where the geometry of
    `align_corners=True` is exact, and the logits are cut back.
    """
    height, width = image.shape[-2:]
    padding = [-(side - 1) % output_stride for side in (height, width)]
    # After normalisation the mean colour is 0
    padded = F.pad(normalise(image), (0, padding[1], 0, padding[0]))
    return model(padded)[..., :height, :width]
