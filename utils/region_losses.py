"""Region mutual information: the loss of 3x3 neighborhoods, which cross-entropy of single pixels does not see."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.distributed.sums import float64
from utils.losses import IGNORE_INDEX, CrossEntropy, at_size_of
from utils.overlap_losses import one_hot

SIDE = 3  # of a neighborhood, and of the cells that maps are averaged over first: the paper's best, table 5
EPSILON = 5e-4  # added to the diagonals: the official code's


class RMILoss(CrossEntropy):
    """The negative lower bound of the mutual information of labels and probabilities; take it beside cross-entropy.

    Zhao et al., arXiv 1910.12037, equations 11 to 15: a 9-dimensional Gaussian of the 3x3 neighborhoods of each image
    and class. Its value is 1/2 log det of the scatter of the labels given the probabilities over 9, relative to that of
    a map without an object, summed over the classes and averaged over the images: near 0 for a perfect prediction. As
    in the official code, the scatter is a sum over the neighborhoods, maps are averaged over 3x3 cells first, and
    pixels without a label are 0 in both. The probabilities are those of the softmax (the official code trains
    sigmoids). The sum over a step weights each call by its labeled pixels.
    """

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """logits [B, K, h, w], label int64 [B, H, W] -> (loss times the weight, sum of the pixel weights): scalars."""
        weight, logits = self.pixel_weights(label).sum(), at_size_of(label, logits)
        is_labeled = (label != IGNORE_INDEX)[:, None]
        truth = neighborhoods(one_hot(label, logits.shape[1]).float())  # [B, K, 9, N]
        losses = conditional_log_det(truth, neighborhoods(logits.softmax(1) * is_labeled)) / SIDE**2  # [B, K]
        if self.class_weights is not None:
            losses = losses * self.class_weights / self.class_weights.mean()
        return losses.sum(1).mean().to(logits) * weight, weight


def neighborhoods(maps: Tensor) -> Tensor:
    """[B, K, H, W] -> float64 [B, K, 9, N]: the 3x3 values around each of N cells, less their means over the cells."""
    cells = F.avg_pool2d(maps, SIDE, padding=SIDE // 2)  # [B, K, h, w]
    height, width = cells.shape[-2:]
    cells = F.pad(cells, (0, max(0, SIDE - width), 0, max(0, SIDE - height)))  # a tiny map has one neighborhood
    vectors = float64(cells).unfold(2, SIDE, 1).unfold(3, SIDE, 1).flatten(4).flatten(2, 3).transpose(2, 3)
    return vectors - vectors.mean(-1, keepdim=True)


def conditional_log_det(truth: Tensor, prediction: Tensor) -> Tensor:
    """[B, K]: 1/2 log det of the scatter matrix of `truth` given `prediction`, both [B, K, 9, N], over that of no
    scatter. Its terms: equation 13 of the paper.
    """
    identity = EPSILON * torch.eye(truth.shape[2], dtype=truth.dtype, device=truth.device)
    between, own = truth @ prediction.mT, prediction @ prediction.mT + identity  # [B, K, 9, 9]
    explained = between @ torch.linalg.solve_ex(own, between.mT).result  # unlike `solve` it does not wait for a GPU
    root = torch.linalg.cholesky_ex(truth @ truth.mT - explained + identity).L
    return (root.diagonal(dim1=2, dim2=3).log() - 0.5 * math.log(EPSILON)).sum(-1)
