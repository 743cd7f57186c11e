"""From class scores to labels, and how probable these are."""

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.strips import strips


def scores_to_labels(scores: Tensor) -> Tensor:
    """`scores [B, K, H, W] -> uint8 [B, H, W]`, the results of `scores.argmax(1)`; floats, K at most 256.

    Of equal scores the first class wins, and NaN wins over all numbers. Does not wait for CUDA. In any order of memory;
    the CPU is fastest on contiguous scores, of which it makes no copy.
    """
    if scores.device.type != "cpu":
        return scores.argmax(1).to(torch.uint8)
    if scores.is_contiguous():
        return pooled_labels(scores)
    labels = torch.empty(scores.shape[0], *scores.shape[2:], dtype=torch.uint8)
    for rows in strips(scores.shape, scores.device):
        labels[:, rows] = pooled_labels(class_major(scores[:, :, rows]))
    return labels


def labels_and_confidence(scores: Tensor, *, are_logits: bool, with_confidence: bool) -> tuple[Tensor, Tensor | None]:
    """Scores [B, K, H, W] -> labels uint8 [B, H, W], and their probabilities float32 [B, H, W] or None.

    `are_logits`: the scores are logits, else probabilities.
    """
    labels = scores_to_labels(scores)
    if not with_confidence:
        return labels, None
    confidence = torch.empty(labels.shape, device=scores.device)
    for rows in strips(scores.shape, scores.device):  # the softmax is as large as the scores
        part = scores[:, :, rows].float()
        confidence[:, rows] = (part.softmax(1) if are_logits else part).amax(1)
    return labels, confidence


def pooled_labels(scores: Tensor) -> Tensor:
    """`scores_to_labels` of contiguous scores on the CPU.

    torch's `argmax` compares the classes of one pixel at a time. Max pooling compares a row of pixels at once if the
    columns are its channels: a tenth of the time, on all cores.
    """
    height = scores.shape[2]
    columns = scores.permute(0, 3, 1, 2)  # [B, W, K, H], in memory channels-last
    best, index = F.max_pool2d(columns, (scores.shape[1], 1), return_indices=True)  # [B, W, 1, H], k * H + row
    if best.isnan().any():  # pooling takes the last NaN of a pixel, argmax the first
        return scores.argmax(1).to(torch.uint8)
    starts = index[:, :, 0].permute(0, 2, 1) - torch.arange(height)[:, None]  # [B, H, W], k * H
    return (starts * (1 / height)).add_(0.5).to(torch.uint8)  # rounded; an integer division takes longer


def class_major(scores: Tensor) -> Tensor:
    """A contiguous copy. From channels-last memory by 2-D transpositions, which are twice as fast as torch's copy."""
    if not scores.permute(0, 2, 3, 1)[0].is_contiguous():
        return scores.contiguous()
    pixels = scores.permute(0, 2, 3, 1).flatten(1, 2)  # [B, H * W, K]
    copy = scores.new_empty(scores.shape)
    for one, target in zip(pixels, copy.flatten(2), strict=True):
        target.copy_(one.t())
    return copy
