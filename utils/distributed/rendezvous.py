"""A clean start for the processes that torchrun starts again after a failure.

torchrun keeps one store over all its restarts (pytorch/pytorch#135712). A process that reads an address there before
its owner has written the new one waits for a dead one: on gloo, three of nine restarts failed or hung.
"""

import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

TIMEOUT = timedelta(minutes=30)
PAUSE = 0.02  # seconds between two looks of the first process at who is there


def join() -> tuple[dist.Store, int, int]:
    """(a store that no earlier attempt has written to, rank, number of processes), from torchrun's environment."""
    store, rank, world = next(rendezvous("env://", timeout=TIMEOUT))
    store.set_timeout(TIMEOUT)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        name = publish_prefix(store, world) if rank == 0 else request_prefix(store, rank)
        store = dist.PrefixStore(name, store)
    return store, rank, world


def publish_prefix(store: dist.Store, world: int) -> str:
    """Make up this attempt's name and give it to each process, until all have it.

    What a process of an earlier attempt left behind is answered too, and its place then asks again.
    """
    name, answered = uuid.uuid4().hex, dict.fromkeys(range(1, world), b"")
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while answered:
        for rank, last in list(answered.items()):
            if store.check([f"{name}/{rank}"]):
                del answered[rank]
            elif store.check([f"hello/{rank}"]) and (word := store.get(f"hello/{rank}")) != last:
                store.set(f"welcome/{word.decode()}", name)
                answered[rank] = word
        if time.monotonic() > deadline:
            raise TimeoutError(f"ranks {', '.join(map(str, answered))} of {world} did not come")
        time.sleep(PAUSE)
    return name


def request_prefix(store: dist.Store, rank: int) -> str:
    """Ask under a word that no other process ever uses, so that the answer is of this attempt."""
    word = uuid.uuid4().hex
    store.set(f"hello/{rank}", word)
    name = store.get(f"welcome/{word}").decode()  # waits for it
    store.set(f"{name}/{rank}", "here")
    return name
