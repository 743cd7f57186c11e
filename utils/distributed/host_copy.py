"""Tensors on their way from the device to the host."""

import torch
from torch import Tensor


class HostCopy:
    """A copy of `tensor` on the CPU, which CUDA makes when it has computed the tensor. Nothing waits before `read`."""

    def __init__(self, tensor: Tensor):
        self.copy, self.is_copied = tensor.to("cpu", non_blocking=tensor.is_cuda), None
        if tensor.is_cuda:
            self.is_copied = torch.cuda.Event()
            self.is_copied.record()

    def read(self) -> Tensor:
        """The copy; waits until it is made."""
        if self.is_copied:
            self.is_copied.synchronize()
        return self.copy
