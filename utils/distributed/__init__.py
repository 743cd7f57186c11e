"""Communication between the processes that torchrun starts. In a single process nothing is communicated."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.distributed import rendezvous


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Within the block the processes of torchrun form a group: NCCL if `device` is a GPU, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, rank, world = rendezvous.join()
    backend = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    dist.init_process_group(**backend, store=store, rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """The rank among the processes of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    return rank() == 0


def print_main(text: str) -> None:
    """Print on the first process alone."""
    if is_main_process():
        print(text, flush=True)


def all_reduce(tensor: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def all_sums(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each value over all processes, in float64; `device` is the one they compute on."""
    # NCCL reduces on GPUs only, gloo on the CPU; MPS, with a single process, has no float64
    place = device if device.type == "cuda" else torch.device("cpu")
    return all_reduce(torch.tensor(values, dtype=torch.float64, device=place)).tolist()


def broadcast(value: object) -> object:
    """The value of the first process, in every process."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def all_gather(value: object) -> list:
    """The values of all processes, in the order of their ranks."""
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def gather_flat(values: list) -> list:
    """The lists of all processes as one list, in the order of their ranks."""
    return list(chain.from_iterable(all_gather(values)))


def sync_buffers(model: nn.Module) -> None:
    """Copy the first process's buffers (batch-norm statistics) to all: those that its checkpoint holds."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` in DistributedDataParallel; in a single process `model` itself."""
    if not dist.is_initialized():
        return model
    return nn.parallel.DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
