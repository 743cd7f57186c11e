"""Losses over pixels. Each returns a sum and its divisor, which add up over micro-batches and processes."""

from collections.abc import Sequence
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.constants import IGNORE_INDEX, LOSSES
from utils.errors import UserError
from utils.geometry import resize
from utils.loss_terms import loss_terms
from utils.upsampled_cross_entropy import upsampled_cross_entropy

__all__ = ["IGNORE_INDEX", "LOSSES", "AuxiliaryLoss", "CrossEntropy", "FocalLoss", "LossSum", "OHEMLoss", "build_loss"]


class CrossEntropy(nn.Module):
    """`logits [B, K, h, w], label int64 [B, H, W] -> (sum of the loss over labeled pixels, sum of their weights)`

    Logits of another size than the label are upsampled as by the network. Both results are scalars, and 0 without a
    labeled pixel. A pixel weighs 1, or the entry of `class_weights [K]` of its class; its loss is multiplied by its
    weight.
    """

    def __init__(self, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights)

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        losses = self.pixel_losses(logits, label)
        weights = self.pixel_weights(label)
        return (losses * weights).sum(), weights.sum()

    def pixel_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """[B, H, W], without weights; 0 at ignored pixels."""
        if logits.device.type == "cpu" and logits.shape[-2:] != label.shape[-2:]:
            return upsampled_cross_entropy(logits, label, ignore_index=IGNORE_INDEX)
        logits = at_size_of(label, logits)
        if torch.are_deterministic_algorithms_enabled() and logits.is_cuda:
            # CUDA has no deterministic nll_loss over [B, K, H, W], but one over [N, K]
            flat = logits.permute(0, 2, 3, 1).flatten(0, 2)
            return F.cross_entropy(flat, label.flatten(), ignore_index=IGNORE_INDEX, reduction="none").view_as(label)
        return F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="none")

    def pixel_weights(self, label: Tensor) -> Tensor:
        """[B, H, W]; 0 at ignored pixels."""
        is_labeled = label != IGNORE_INDEX
        if self.class_weights is None:
            return is_labeled.float()
        return self.class_weights[label.where(is_labeled, 0)] * is_labeled


class FocalLoss(CrossEntropy):
    """Cross-entropy of each pixel times (1 - p)^gamma, p being the probability of its class.

    Lin et al., arXiv 1708.02002, equation 4.
    """

    def __init__(self, class_weights: Tensor | None = None, *, gamma: float = 2.0):
        super().__init__(class_weights)
        self.gamma = gamma

    def pixel_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        losses = super().pixel_losses(logits, label)
        # -expm1(-loss) is 1 - p without cancellation; the bound keeps the gradient finite at p = 1 for gamma < 1
        return (-torch.expm1(-losses)).clamp_min(1e-12) ** self.gamma * losses


class OHEMLoss(CrossEntropy):
    """Cross-entropy of the `fraction` (above 0, up to 1) of each image's labeled pixels with the highest weighted loss.

    After TF DeepLab's hard example mining, which chooses among the pixels of the whole batch: within an image the
    choice does not depend on micro-batches and processes. Raises UserError for a `fraction` out of range.
    """

    def __init__(self, class_weights: Tensor | None = None, *, fraction: float = 0.25):
        super().__init__(class_weights)
        if not 0 < fraction <= 1:
            raise UserError(f"`ohem_fraction` {fraction}: give a number above 0 and at most 1")
        self.fraction = fraction

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.pixel_weights(label).flatten(1)  # [B, H * W]
        losses = self.pixel_losses(logits, label).flatten(1) * weights
        is_labeled = label.flatten(1) != IGNORE_INDEX
        num_labeled = is_labeled.sum(1, keepdim=True)
        num_chosen = (self.fraction * num_labeled).round().clamp_min(1)
        # By ranks, not by indexing: a GPU need not tell the host how many pixels are labeled
        order = losses.detach().masked_fill(~is_labeled, -1).argsort(dim=1, descending=True, stable=True)
        is_chosen = (order.argsort(dim=1) < num_chosen) & is_labeled
        return (losses * is_chosen).sum(), (weights * is_chosen).sum()


def at_size_of(label: Tensor, logits: Tensor) -> Tensor:
    """Logits [B, K, h, w] at the size of `label` [B, H, W], upsampled as by the network."""
    return logits if logits.shape[-2:] == label.shape[-2:] else resize(logits, label.shape[-2:])


class LossSum(nn.Module):
    """The weighted sum of several losses, `terms` [(weight, loss)]: each is a mean over the labeled pixels first.

    The mean of `ohem`, whose divisor is that of the chosen pixels, is then that of one micro-batch of a process; so are
    those of the losses over a whole map.
    """

    def __init__(self, terms: Sequence[tuple[float, CrossEntropy]]):
        super().__init__()
        self.factors = [factor for factor, _ in terms]
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        weight, total = self.losses[0].pixel_weights(label).sum(), 0.0
        for factor, loss in zip(self.factors, self.losses, strict=True):
            total = total + factor * with_divisor(weight, *loss(logits, label))
        return total, weight


def with_divisor(weight: Tensor, total: Tensor, own_weight: Tensor) -> Tensor:
    """The sum whose mean over `weight` is that of `total` over `own_weight`."""
    return total * (weight / own_weight.where(own_weight > 0, 1))


class AuxiliaryLoss(nn.Module):
    """`loss` of the first of two outputs, and of the second as well, times `factor`."""

    def __init__(self, loss: CrossEntropy | LossSum, factor: float):
        super().__init__()
        self.loss, self.factor = loss, factor

    def forward(self, outputs: tuple[Tensor, Tensor], label: Tensor) -> tuple[Tensor, Tensor]:
        (total, weight), other = (self.loss(logits, label) for logits in outputs)
        return total + self.factor * with_divisor(weight, *other), weight


def build_loss(
    kind: str,
    *,
    class_weights: Sequence[float] | Tensor | None = None,
    focal_gamma: float = 2.0,
    ohem_fraction: float = 0.25,
) -> CrossEntropy | LossSum:
    """The loss `kind`: a name of LOSSES, or a sum such as "ce:0.375+dice:1.125". `class_weights` [K] or None.

    Raises UserError for an unknown name or a bad number.
    """
    weights = None if class_weights is None else torch.as_tensor(class_weights)
    options = {"focal": {"gamma": focal_gamma}, "ohem": {"fraction": ohem_fraction}}
    terms = []
    for name, factor in loss_terms(kind).items():
        module, _, loss = LOSSES[name].rpartition(".")
        terms.append((factor, getattr(import_module(f"utils.{module}"), loss)(weights, **options.get(name, {}))))
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else LossSum(terms)
