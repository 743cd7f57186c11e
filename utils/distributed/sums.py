"""Sums over all processes that the host reads later than the device computes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from utils.distributed import all_reduce
from utils.distributed.host_copy import HostCopy


class AllSums:
    """The sum of each value over all processes, in float64: `tensor`, where the backend reduces, and `read`.

    `values` are joined: tensors made by `float64` on `device`, and numbers. Nothing waits for a GPU before `read`.
    """

    def __init__(self, *values: Tensor | Sequence[float], device: torch.device):
        # NCCL reduces on GPUs only, gloo on the CPU; MPS, with a single process, has no float64
        place = device if device.type == "cuda" else torch.device("cpu")
        parts = [each if isinstance(each, Tensor) else on_host(each, place) for each in values]
        self.tensor = all_reduce(torch.cat([part.to(place, non_blocking=True) for part in parts]))
        self.host = HostCopy(self.tensor)

    def read(self) -> list[float]:
        """The sums; waits for the device where it must."""
        return self.host.read().tolist()


def float64(tensor: Tensor) -> Tensor:
    """In double precision; on the CPU if `tensor` is on MPS, which has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def on_host(values: Sequence[float], place: torch.device) -> Tensor:
    """float64, in memory that is copied to `place` without waiting."""
    return torch.tensor(values, dtype=torch.float64, pin_memory=place.type == "cuda")
