"""Communication between the processes that torchrun starts. In a single process nothing is communicated."""

import contextlib
import json
import os
from collections.abc import Iterator
from itertools import chain, count
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.distributed import rendezvous


class Member(NamedTuple):
    """This process among those of torchrun, and the store that all of them read and write."""

    store: dist.Store
    rank: int
    world_size: int
    calls: Iterator[int]  # numbers those of `broadcast`


member: Member | None = None  # within `process_group`, where there are several processes


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Within the block the processes of torchrun know each other; after `connect` they also exchange tensors.

    After an error the backend stays as it is, since to destroy it may wait for peers: see `failure.exit_at_once`.
    """
    global member
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    member = Member(*rendezvous.join(), count())
    try:
        yield
    finally:
        member = None
    if dist.is_initialized():
        dist.destroy_process_group()


def connect(device: torch.device) -> None:
    """Start NCCL if `device` is a GPU, else gloo. Start the data workers before.

    Threads of the backend enter and leave the Python interpreter. A process that is forked at such a moment inherits
    a lock of the interpreter that nobody releases (seen with gloo and Python 3.11).
    """
    if member is None:
        return
    member.store.set(f"connect/{member.rank}", "here")
    rendezvous.wait_for(member.store, [f"connect/{rank}" for rank in range(member.world_size)])
    backend = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
    known = {"store": member.store, "rank": member.rank, "world_size": member.world_size}
    dist.init_process_group(**backend, **known, timeout=rendezvous.TIMEOUT)


def world_size() -> int:
    return member.world_size if member else 1


def rank() -> int:
    return member.rank if member else 0


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
    if member:
        dist.all_reduce(tensor)
    return tensor


def broadcast(value: object) -> object:
    """The value (plain, as JSON has them) of the first process, in every process; needs no `connect`.

    The others look for it in the store as long as it takes: no collective that times out.
    """
    if member is None:
        return value
    key = f"broadcast/{next(member.calls)}"
    if member.rank == 0:
        member.store.set(key, json.dumps(value))
    rendezvous.wait_for(member.store, [key])
    return json.loads(member.store.get(key))


def all_gather(value: object) -> list:
    """The values of all processes, in the order of their ranks."""
    values = [value] * world_size()
    if member:
        dist.all_gather_object(values, value)
    return values


def gather_flat(values: list) -> list:
    """The lists of all processes as one list, in the order of their ranks."""
    return list(chain.from_iterable(all_gather(values)))


def sync_buffers(model: nn.Module) -> None:
    """Copy the first process's buffers (batch-norm statistics) to all: those that its checkpoint holds."""
    if member:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` in DistributedDataParallel; in a single process `model` itself."""
    if member is None:
        return model
    return nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # `sync_buffers` does it, before a validation
        gradient_as_bucket_view=True,
    )
