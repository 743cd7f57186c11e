"""A clean start for the processes that torchrun restarts after a failure.

torchrun keeps one store over all its restarts (pytorch/pytorch#135712). A process that reads a peer's address there
before that peer has replaced it waits for a dead process: with gloo, three of nine restarts failed or hung.
Therefore the first process publishes a new prefix for the keys of each attempt.
"""

import os
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

TIMEOUT = timedelta(minutes=30)
PAUSE = 0.05  # seconds between two polls of the store


def join() -> tuple[dist.Store, int, int]:
    """(a store that no earlier attempt has written to, rank, world size), from torchrun's environment."""
    store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        prefix = publish_prefix(store, world) if rank == 0 else request_prefix(store, rank)
        store = dist.PrefixStore(prefix, store)
    return store, rank, world


def publish_prefix(store: dist.Store, world: int) -> str:
    """Choose the prefix of this attempt, and answer the request of each rank until all have confirmed it.

    The store may still hold requests of dead processes. They are answered too; the live process of that rank then
    replaces the request by its own, which is answered again.
    """
    prefix, answered = uuid.uuid4().hex, dict.fromkeys(range(1, world), b"")
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while answered:
        for rank, last_request in list(answered.items()):
            if store.check([f"{prefix}/{rank}"]):
                del answered[rank]
            elif store.check([f"hello/{rank}"]) and (request := store.get(f"hello/{rank}")) != last_request:
                store.set(f"welcome/{request.decode()}", prefix)
                answered[rank] = request
        if time.monotonic() > deadline:
            raise TimeoutError(f"ranks {', '.join(map(str, answered))} of {world} did not join within {TIMEOUT}")
        time.sleep(PAUSE)
    return prefix


def request_prefix(store: dist.Store, rank: int) -> str:
    """Ask for the prefix under a key that no other process uses, so that the answer belongs to this attempt."""
    request = uuid.uuid4().hex
    store.set(f"hello/{rank}", request)
    wait_for(store, [f"welcome/{request}"])
    prefix = store.get(f"welcome/{request}").decode()
    store.set(f"{prefix}/{rank}", "here")
    return prefix


def wait_for(store: dist.Store, keys: Sequence[str]) -> None:
    """Wait until `keys` are set, however long it takes. SIGTERM ends it; it cannot end `store.wait` and `store.get`."""
    while not store.check(list(keys)):
        time.sleep(PAUSE)
