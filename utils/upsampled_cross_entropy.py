"""Cross-entropy of upsampled logits in strips of rows: they, their softmax and its gradient never exist as a whole."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from utils.geometry import resize_matrix

STRIP_BYTES = 1 << 20  # of upsampled logits: they stay in the cache of a core, and calls of few pixels cost little


def upsampled_cross_entropy(logits: Tensor, label: Tensor, *, ignore_index: int) -> Tensor:
    """`logits [B, K, h, w], label int64 [B, H, W] -> losses [B, H, W]`, 0 at ignored pixels; on the CPU.

    Equals `F.cross_entropy(resize(logits, (H, W)), label, reduction="none")` but for rounding. Its backward pass
    upsamples the logits once more.
    """
    return UpsampledCrossEntropy.apply(logits, label, ignore_index)


class UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
        ctx.save_for_backward(logits, label)
        ctx.ignore_index = ignore_index
        losses = logits.new_empty(label.shape)
        upsampling = Upsampling(logits, label.shape[-2:])
        for index in range(len(logits)):
            wide = upsampling.widen(logits[index])
            for strip in upsampling.strips:
                truth = label[index, strip.rows]  # [R, W]
                is_ignored = truth == ignore_index
                log_probabilities = strip.heighten(wide).log_softmax(1)  # [R, K, W]
                chosen = log_probabilities.gather(1, truth.masked_fill(is_ignored, 0)[:, None])[:, 0]  # [R, W]
                losses[index, strip.rows] = chosen.neg_().masked_fill_(is_ignored, 0)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of a pixel's loss is its softmax, less 1 at its class."""
        logits, label = ctx.saved_tensors
        upsampling = Upsampling(logits, label.shape[-2:])
        result = torch.empty_like(logits)
        for index in range(len(logits)):
            wide = upsampling.widen(logits[index])
            total = torch.zeros_like(wide)
            for strip in upsampling.strips:
                truth = label[index, strip.rows][:, None]  # [R, 1, W]
                is_ignored = truth == ctx.ignore_index
                factor = gradient[index, strip.rows][:, None].masked_fill(is_ignored, 0)
                probabilities = strip.heighten(wide).softmax(1)  # [R, K, W]
                probabilities.mul_(factor).scatter_add_(1, truth.masked_fill(is_ignored, 0), factor.neg_())
                strip.add_lowered(probabilities, total)
            result[index] = upsampling.narrow(total)
        return result, None, None


class Upsampling:
    """`resize` of [K, h, w] to `size` as matrix products, first along the rows, then a strip at a time down them."""

    def __init__(self, logits: Tensor, size: tuple[int, int]):
        self.num_classes, *sides = logits.shape[1:]
        down, self.across = (resize_matrix(old, new, logits.dtype) for old, new in zip(sides, size, strict=True))
        rows = max(1, STRIP_BYTES // (4 * self.num_classes * size[1]))
        self.strips = [Strip(down, slice(start, start + rows)) for start in range(0, size[0], rows)]

    def widen(self, logits: Tensor) -> Tensor:
        """[K, h, w] -> [h, K, W]"""
        return logits.transpose(0, 1) @ self.across.T

    def narrow(self, gradient: Tensor) -> Tensor:
        """The gradient of `widen`: [h, K, W] -> [K, h, w]"""
        return (gradient @ self.across).transpose(0, 1)


class Strip:
    """The `rows` of the upsampled map, and the rows of the map that they depend on."""

    def __init__(self, down: Tensor, rows: slice):
        height, self.rows = len(down), slice(rows.start, min(rows.stop, len(down)))
        scale = (down.shape[1] - 1) / max(1, height - 1)
        # One row more on each side than needed, in case of rounding: its weight is 0
        first, last = max(0, int(scale * rows.start) - 1), int(scale * (self.rows.stop - 1)) + 3
        self.source, self.down = slice(first, last), down[self.rows, first:last]

    def heighten(self, wide: Tensor) -> Tensor:
        """[h, K, W] -> [R, K, W]"""
        return (self.down @ wide[self.source].flatten(1)).view(-1, *wide.shape[1:])

    def add_lowered(self, gradient: Tensor, total: Tensor) -> None:
        """Add to `total` [h, K, W] the gradient of `heighten` at `gradient` [R, K, W]."""
        total[self.source].flatten(1).addmm_(self.down.T, gradient.flatten(1))
