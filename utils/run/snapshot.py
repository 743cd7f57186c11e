"""The state of a run, copied to the memory of the host: training continues while a thread writes the copy."""

import weakref
from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from utils.run.digests import KEY, digests, named_tensors


class Snapshot:
    """`content`, with tensors on the CPU that nothing changes. They are read after `wait`."""

    def __init__(self, content: dict, is_copied: torch.cuda.Event | None):
        self.content, self.is_copied = content, is_copied

    def wait(self) -> None:
        """Until CUDA has made the copy."""
        if self.is_copied is not None:
            self.is_copied.synchronize()

    @cached_property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each tensor, computed once for all files that hold them."""
        self.wait()
        return digests(self.content)

    def checkpoint(self, more: Mapping | None = None) -> dict:
        """The content of a checkpoint file with the plain values `more`."""
        return self.content | (more or {}) | {KEY: self.digests}


class HostBuffers:
    """Memory for snapshots, pinned for CUDA. It is used again once nobody holds the snapshot that was in it.

    New memory costs as much time as the copy: each page is cleared at its first use.
    """

    def __init__(self) -> None:
        self.sets: list[tuple[weakref.ref, list[Tensor]]] = []  # (snapshot, its tensors)

    def copy(self, content: dict) -> Snapshot:
        """A snapshot of `content` as it is when the device has done what was launched before; CUDA is not waited for.

        The copies are in the order of what the device does: later steps cannot change what is copied.
        """
        tensors = [tensor.detach() for _, tensor in named_tensors(content)]
        buffers = [fitting(buffer, tensor) for buffer, tensor in zip(self.take(len(tensors)), tensors, strict=True)]
        for buffer, tensor in zip(buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=tensor.is_cuda)
        is_copied = None
        if any(tensor.is_cuda for tensor in tensors):
            is_copied = torch.cuda.Event()
            is_copied.record()
        copies = iter(buffers)
        snapshot = Snapshot(map_tensors(content, lambda _: next(copies)), is_copied)
        self.sets.append((weakref.ref(snapshot), buffers))
        return snapshot

    def take(self, number: int) -> list[Tensor | None]:
        """The tensors of a snapshot that nobody holds, as many None if there is no such."""
        for index, (snapshot, buffers) in enumerate(self.sets):
            if snapshot() is None:
                del self.sets[index]
                return buffers if len(buffers) == number else [None] * number
        return [None] * number


def fitting(buffer: Tensor | None, tensor: Tensor) -> Tensor:
    """`buffer` if it takes the bytes of `tensor` as they lie in memory, else a new one."""
    if buffer is not None and (buffer.shape, buffer.stride(), buffer.dtype) == (
        tensor.shape, tensor.stride(), tensor.dtype,
    ):  # fmt: skip
        return buffer
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)


def map_tensors(value: object, function: Callable[[Tensor], Tensor]) -> object:
    """A copy of `value` with `function(tensor)` in the place of each tensor, in the order of `named_tensors`."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        copy = type(value)((key, map_tensors(item, function)) for key, item in value.items())
        if hasattr(value, "_metadata"):  # versions of the modules, in the state dict of a network
            copy._metadata = value._metadata
        return copy
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, function) for item in value)
    return value
