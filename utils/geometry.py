"""The geometry shared by network and scoring: resizing keeps the corner pixels in place (`align_corners=True`)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size], bilinear."""
    is_trained = torch.is_grad_enabled() and maps.requires_grad
    if is_trained and maps.device.type == "cpu" and not torch.compiler.is_compiling():
        return ResizeOnCPU.apply(maps, size)
    return interpolate(maps, size)


def interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


class ResizeOnCPU(torch.autograd.Function):
    """`interpolate` with a backward pass by matrix products: torch's takes six times as long, and copies channels-last
    maps twice.
    """

    @staticmethod
    def forward(ctx, maps: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.sides = maps.shape[-2:]
        return interpolate(maps, size)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        down, across = (resize_matrix(*sides, dtype) for sides in zip(ctx.sides, gradient.shape[-2:], strict=True))
        pixels = gradient.permute(0, 2, 3, 1).to(dtype)  # [B, H, W, C]
        rows = (down.T @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])  # [B, h, W, C]
        return (across.T @ rows).permute(0, 3, 1, 2).to(gradient.dtype), None


def scaled_side(side: int, scale: float) -> int:
    """`side` pixels at `scale`, with the first and the last pixel in place: the official code's `scale_dimension`."""
    return int((side - 1) * scale + 1)


def resize_matrix(old: int, new: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[new, old] on the CPU: `resize` of one side is a product with it."""
    return interpolate(torch.eye(old, dtype=dtype).view(1, old, old, 1), (new, 1)).view(old, new).T
