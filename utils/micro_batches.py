"""`--accumulate auto`: the fewest equal micro-batches of a step that fit in memory, by a trial before the run."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn

from utils.distributed import all_gather, local_world_size, print_main
from utils.errors import UserError
from utils.memory import available_memory, reset_peak, resident
from utils.train_step import TrainStep

# What the allocators of CUDA, MPS and the CPU say, and the libraries of CUDA
FULL = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED")
MARGIN = 2**28  # bytes left for cuDNN's workspaces and for validation
FIX = "lower `crop_size`, or choose a smaller network"


def possible_counts(batch_size: int, *, fewest: int, smallest: int) -> list[int]:
    """Into how many equal parts of at least `smallest` images `batch_size` can be divided, from `fewest` on."""
    counts = [count for count in range(fewest, batch_size // smallest + 1) if batch_size % count == 0]
    return counts or [fewest]


def fewest_micro_batches(
    step: TrainStep, counts: Sequence[int], *, batch_size: int, crop_size: Sequence[int], num_classes: int, reserve: int
) -> int:
    """The first of `counts`, ascending, with which the `batch_size` images of a process fit in the memory of all.

    `step.network` is not wrapped: processes exchange only the result, so none waits for one whose memory is full. The
    crops are random. `reserve`: bytes that the run will need besides. Weights, statistics and random numbers stay as
    they are. Raises UserError if none fits.
    """
    device = step.device
    make_batch = partial(random_batch, crop_size=crop_size, num_classes=num_classes)
    with undone(step.network, device), local_batch_norm(step.network):
        find = by_measurement if device.type == "cpu" else by_trial
        found = find(step, counts, batch_size, make_batch, reserve + MARGIN)
    if not all(results := all_gather(found)):
        raise UserError(f"the memory of {device} does not hold {batch_size // counts[-1]} images of a step: {FIX}")
    count = max(results)
    print_main(
        f"--accumulate auto: {device} has the memory for {batch_size // count} images at once: --accumulate {count}"
    )
    return count


def by_trial(step: TrainStep, counts: Sequence[int], batch_size: int, make_batch: partial, reserve: int) -> int | None:
    """The first of `counts` with which a backward pass does not fill the device's memory."""
    for count in counts:
        is_full = False
        try:
            _held = torch.empty(reserve, dtype=torch.uint8, device=step.device)
            for _ in range(min(count, 2)):  # the second has the gradients of the first beside it
                step.backward([make_batch(batch_size // count)], pixels=1)
        except (RuntimeError, MemoryError) as error:
            if not FULL.search(str(error)):
                raise
            is_full = True
        _held = None  # and what the frames of the error held is free only now
        step.optimizer.zero_grad()
        torch.get_device_module(step.device).empty_cache()
        if not is_full:
            return count
    return None


def by_measurement(
    step: TrainStep, counts: Sequence[int], batch_size: int, make_batch: partial, reserve: int
) -> int | None:
    """As `by_trial`, on the CPU, where a full memory ends the process: from the memory that the smallest part takes."""
    available = available_memory() / local_world_size() - reserve
    smallest = batch_size // counts[-1]
    reset_peak()
    before = resident("VmHWM")
    for _ in range(2):
        step.backward([make_batch(smallest)], pixels=1)
    step.optimizer.zero_grad()
    each = (resident("VmHWM") - before) / smallest
    return next((count for count in counts if each * (batch_size // count) <= available), None)


def random_batch(size: int, *, crop_size: Sequence[int], num_classes: int) -> dict:
    return {
        "image": torch.randint(0, 256, (size, 3, *crop_size), dtype=torch.uint8),
        "label": torch.randint(0, num_classes, (size, *crop_size), dtype=torch.uint8),
        "id": [""] * size,
    }


@contextlib.contextmanager
def undone(network: nn.Module, device: torch.device) -> Iterator[None]:
    """After the block the buffers of `network` and the random numbers are those of before."""
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    network.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    for buffer, value in buffers:
        buffer.copy_(value)


@contextlib.contextmanager
def local_batch_norm(network: nn.Module) -> Iterator[None]:
    """Within the block synchronized batch norm normalizes by the images of its own process."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)]
    for layer in layers:
        layer.forward = partial(normalize_locally, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def normalize_locally(layer: nn.SyncBatchNorm, features: torch.Tensor) -> torch.Tensor:
    """Also a single value of a channel, which `F.batch_norm` refuses: only the memory counts."""
    return torch.batch_norm(
        features, layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.training,
        layer.momentum, layer.eps, torch.backends.cudnn.enabled,
    )  # fmt: skip
