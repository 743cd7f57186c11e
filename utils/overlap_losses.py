"""Losses of a whole map: Dice and Lovász-softmax approximate the IoU, which cross-entropy of single pixels does not.

Both are means over the classes that the labels of a call hold, weighted by the class weights where there are any. A
class is measured over all images of a call at once: one micro-batch of one process. So unlike cross-entropy they depend
on how a step is divided into micro-batches and processes; their sum over a step is weighted by the labeled pixels.
"""

import torch
from torch import Tensor

from utils.losses import IGNORE_INDEX, CrossEntropy, at_size_of


class OverlapLoss(CrossEntropy):
    """The mean of `class_losses` over the classes in the labels."""

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """logits [B, K, h, w], label int64 [B, H, W] -> (loss times the weight, sum of the pixel weights): scalars."""
        weight, logits = self.pixel_weights(label).sum(), at_size_of(label, logits)
        probabilities = logits.softmax(1).transpose(0, 1).flatten(1)  # [K, B * H * W]
        truth = one_hot(label, logits.shape[1]).transpose(0, 1).flatten(1)
        class_weights = truth.any(1).float()
        if self.class_weights is not None:
            class_weights = class_weights * self.class_weights
        is_labeled = (label != IGNORE_INDEX).flatten()
        losses = self.class_losses(probabilities * is_labeled, truth)
        loss = (losses * class_weights).sum() / class_weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
        return loss * weight, weight

    def class_losses(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        """[K]; `probabilities` and `truth` (bool) [K, N] are 0 at the pixels without a label."""
        raise NotImplementedError


class DiceLoss(OverlapLoss):
    """1 - 2 sum(p g) / (sum(p^2) + sum(g)). Milletari et al., arXiv 1606.04797, section 3, for each class."""

    def class_losses(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        intersection = (probabilities * truth).sum(1)
        size = probabilities.square().sum(1) + truth.sum(1)
        return 1 - 2 * intersection / size.clamp_min(1e-6)  # an absent class has no weight


class LovaszLoss(OverlapLoss):
    """Lovász-softmax: Berman et al., arXiv 1705.08790, equations 8 and 9, over the batch."""

    def class_losses(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        # A class at a time: each needs several maps of its own
        return torch.stack([lovasz(*each) for each in zip(probabilities, truth, strict=True)])


def lovasz(probability: Tensor, truth: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss of one class, at the errors |truth - probability| [N].

    Errors of 0, as of pixels without a label, count nothing.
    """
    errors = (truth.float() - probability).abs()
    # Floats that are not negative have the order of their bits, and torch sorts ascending integers much faster
    order = (-errors.detach().view(getattr(torch, f"int{8 * errors.itemsize}"))).argsort()
    objects = truth[order].long().cumsum(0)  # as integers: CUDA has no deterministic sum of floats
    others = torch.arange(1, len(objects) + 1, device=objects.device) - objects
    jaccard = 1 - (objects[-1] - objects).double() / (objects[-1] + others)
    weights = torch.diff(jaccard, prepend=jaccard.new_zeros(1)).to(errors.dtype)
    return torch.dot(errors, torch.empty_like(weights).scatter_(0, order, weights))


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """int64 [B, H, W] with 255 -> bool [B, K, H, W], without a class at 255."""
    return label[:, None] == torch.arange(num_classes, device=label.device).view(1, -1, 1, 1)
