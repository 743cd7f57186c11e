"""Communication between the processes that torchrun starts. In a single process nothing is communicated.

Imports no torch: what prints and reads flags asks here which process it is.
"""

import contextlib
import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from utils.distributed.group import Member

member: "Member | None" = None  # within `process_group`, where there are several processes


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Within the block the processes of torchrun know each other; after `connect` they also exchange tensors.

    After an error the backend stays as it is, since to destroy it may wait for peers: see `failure.exit_at_once`.
    """
    global member
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    from utils.distributed.group import Member  # imports torch

    joined = member = Member()
    try:
        yield
    finally:
        member = None
    joined.disconnect()


def connect(device: "torch.device") -> None:
    """Start NCCL if `device` is a GPU, else gloo. Start the data workers before.

    Threads of the backend enter and leave the Python interpreter. A process that is forked at such a moment inherits
    a lock of the interpreter that nobody releases (seen with gloo and Python 3.11).
    """
    if member:
        member.connect(device)


def world_size() -> int:
    return member.world_size if member else 1


def rank() -> int:
    return member.rank if member else 0


def local_rank() -> int:
    """The rank among the processes of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if member else 1


def is_main_process() -> bool:
    return rank() == 0


def print_main(text: str) -> None:
    """Print on the first process alone."""
    if is_main_process():
        print(text, flush=True)


def all_reduce(tensor: "Tensor") -> "Tensor":
    """The sum over all processes, in place."""
    if member:
        member.all_reduce(tensor)
    return tensor


def broadcast(value: object) -> object:
    """The value (plain, as JSON has them) of the first process, in every process; needs no `connect`.

    The others look for it in the store as long as it takes: no collective that times out.
    """
    return member.broadcast(value) if member else value


def share_on_machine(value: object) -> object:
    """As `broadcast`, within each machine: the value of the process whose `local_rank` is 0."""
    return member.share_on_machine(value, local_rank()) if member else value


def all_gather(value: object) -> list:
    """The values of all processes, in the order of their ranks."""
    return member.all_gather(value) if member else [value]


def gather_flat(values: list) -> list:
    """The lists of all processes as one list, in the order of their ranks."""
    return list(chain.from_iterable(all_gather(values)))


def sync_buffers(model: "nn.Module") -> None:
    """Copy the first process's buffers (batch-norm statistics) to all: those that its checkpoint holds."""
    if member:
        member.sync_buffers(model)


def wrap(model: "nn.Module", device: "torch.device") -> "nn.Module":
    """`model` in DistributedDataParallel; in a single process `model` itself."""
    return member.wrap(model, device) if member else model
