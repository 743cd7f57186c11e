"""Compare what an exported file computes with what its network computes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from utils.inference import Predictor
from utils.labels import scores_to_labels
from utils.progress import progress


@dataclass(frozen=True)
class Comparison:
    """`max_difference`: of the logits, absolute; None for a file of labels. `equal`: share of pixels with the same
    label, of `num_images` images.
    """

    max_difference: float | None
    equal: float
    num_images: int

    def __str__(self) -> str:
        difference = "" if self.max_difference is None else f"logits differ by at most {self.max_difference:.2g}, "
        return f"{difference}{self.equal:.4%} of the labels are equal on {self.num_images} images"

    def is_within(self, max_difference: float, min_equal: float) -> bool:
        """Whether both are; False for logits that are not finite."""
        return (self.max_difference is None or self.max_difference <= max_difference) and self.equal >= min_equal


@torch.no_grad()
def compare(
    model: nn.Module, run: Callable[[Tensor], Tensor], images: Sequence[Tensor], *, gives_labels: bool
) -> Comparison:
    """`run` (uint8 [B, 3, H, W] -> logits, or labels if `gives_labels`) with `model` on each of `images`."""
    predictor = Predictor(model, torch.device("cpu"))
    differences, equal, total = [], 0, 0
    for image in progress("comparing", 0, len(images), iterable=images, unit="image"):
        expected, found = predictor(image), run(image)
        if not gives_labels:
            differences.append((found - expected).abs().max())
            found = scores_to_labels(found)
        equal += (found == scores_to_labels(expected)).sum().item()
        total += found.numel()
    # The maximum of a tensor is NaN if one of its values is; that of Python is not
    maximum = torch.stack(differences).max().item() if differences else None
    return Comparison(maximum, equal / total, sum(map(len, images)))
