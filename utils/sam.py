"""Sharpness-aware minimization (Foret et al., arXiv 2010.01412): gradients from where the loss is higher nearby."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def ascended(network: nn.Module, rho: float) -> Iterator[None]:
    """Inside, the weights are moved by `rho` along their gradients (L2 norm over all of them), which are then removed.

    After it, weights and statistics of batch norm are those of before, bit for bit, and the gradients those of inside.
    Gradients that are not finite move nothing: the step that follows is skipped because of them. Nothing waits for the
    device.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.grad is not None]
    weights = [parameter.detach() for parameter in parameters]
    kept = [*weights, *network.buffers()]
    copies = [tensor.clone() for tensor in kept]
    torch._foreach_add_(weights, ascent([parameter.grad for parameter in parameters], rho))
    for parameter in parameters:
        parameter.grad = None
    try:
        yield
    finally:
        for tensor, copy in zip(kept, copies, strict=True):
            tensor.copy_(copy)


def ascent(gradients: list[Tensor], rho: float) -> list[Tensor]:
    """The step along `gradients`, equation 2 of the paper; 0 if they are 0 or not finite."""
    norm = nn.utils.get_total_norm(gradients)
    is_usable = norm.isfinite() & (norm > 0)
    factor = (rho / norm).where(is_usable, 0)
    return [torch.where(is_usable, gradient * factor, 0) for gradient in gradients]
