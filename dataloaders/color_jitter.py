"""Random brightness, contrast, saturation and hue, by torchvision's functions for Pillow's images."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional


class ColorJitter:
    """As torchvision's `ColorJitter(strength, strength, strength, strength / 4)`, by the numbers of a given generator.

    `strength` is above 0 and at most 1. In random order: brightness, contrast and saturation times U(1 - strength,
    1 + strength), and the hue turned by U(-strength / 4, strength / 4) of the circle.
    """

    def __init__(self, strength: float):
        self.strength = strength

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """uint8 [3, H, W] -> the same."""
        factors = rng.uniform(1 - self.strength, 1 + self.strength, 3)
        hue = rng.uniform(-self.strength / 4, self.strength / 4)
        changes = [
            (functional.adjust_brightness, factors[0]), (functional.adjust_contrast, factors[1]),
            (functional.adjust_saturation, factors[2]), (functional.adjust_hue, hue),
        ]  # fmt: skip
        pixels = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        for number in rng.permutation(len(changes)):
            change, value = changes[number]
            pixels = change(pixels, float(value))
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
