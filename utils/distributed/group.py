"""One process among those of torchrun: values go through torchrun's store, tensors through NCCL or gloo."""

import json
import os
from itertools import count

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.distributed import rendezvous


class Member:
    """This process, and the store that all of them read and write; after `connect` it also exchanges tensors."""

    def __init__(self):
        self.store, self.rank, self.world_size = rendezvous.join()
        self.calls = count()  # numbers those of `share`

    def connect(self, device: torch.device) -> None:
        self.store.set(f"connect/{self.rank}", "here")
        rendezvous.wait_for(self.store, [f"connect/{rank}" for rank in range(self.world_size)])
        backend = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
        known = {"store": self.store, "rank": self.rank, "world_size": self.world_size}
        dist.init_process_group(**backend, **known, timeout=rendezvous.TIMEOUT)

    def disconnect(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def broadcast(self, value: object) -> object:
        return self.share("all", value, is_source=self.rank == 0)

    def share_on_machine(self, value: object, local_rank: int) -> object:
        return self.share(os.environ.get("GROUP_RANK", "0"), value, is_source=local_rank == 0)

    def share(self, group: str, value: object, *, is_source: bool) -> object:
        """The value of the one process of `group` that is its source."""
        key = f"broadcast/{next(self.calls)}/{group}"
        if is_source:
            self.store.set(key, json.dumps(value))
        rendezvous.wait_for(self.store, [key])
        return json.loads(self.store.get(key))

    def all_gather(self, value: object) -> list:
        values = [value] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def all_reduce(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor)

    def sync_buffers(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        return nn.parallel.DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,  # `sync_buffers` does it, before a validation
            gradient_as_bucket_view=True,
        )
