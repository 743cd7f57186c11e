"""The validation loss."""

import math

import torch
from torch import Tensor

from utils.distributed import gather_flat
from utils.distributed.sums import float64
from utils.losses import CrossEntropy

NUM_ROWS = 128  # of an image at a time: little memory beside the logits


class MeanCrossEntropy:
    """Plain cross-entropy (natural logarithm) over the labeled pixels of a split: their sum over their number.

    Whatever the training loss is, and without class weights, so that runs compare. As in the confusion matrix, every
    pixel counts alike, not every image.
    """

    def __init__(self) -> None:
        self.criterion = CrossEntropy()
        self.sums: list[Tensor] = []  # float64 [2] of each strip of rows: loss and labeled pixels, on the device

    def update(self, logits: Tensor, label: Tensor) -> None:
        """`logits` float32 [B, K, H, W], `label` uint8 [B, H, W] of class numbers or 255. Does not wait for CUDA."""
        rows = zip(logits.split(NUM_ROWS, dim=2), label.long().split(NUM_ROWS, dim=1), strict=True)
        self.sums.append(sum(float64(torch.stack(self.criterion(*part))) for part in rows))

    def mean(self) -> float | None:
        """Over the images of all processes; None without a labeled pixel, or where the loss is not finite.

        The same bits for every number of processes: `fsum` does not depend on the order.
        """
        sums = gather_flat([each.tolist() for each in self.sums])
        pixels = math.fsum(weight for _, weight in sums)
        loss = math.fsum(loss for loss, _ in sums) / pixels if pixels else math.nan
        return loss if math.isfinite(loss) else None
