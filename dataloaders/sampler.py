"""The batches of an epoch: a function of seed and epoch alone, for any number of processes."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from utils.errors import UserError


class ResumableBatchSampler(Sampler[list[tuple[int, int]]]):
    """Micro-batches of keys (epoch, index) of training samples.

    The `batch_size` images of a step are divided into `accumulate` micro-batches for each of `world_size` processes;
    this sampler yields those of process `rank`. Images that remain after the last full step of an epoch are dropped.
    Call `set_position` before each epoch: no sample before its step is loaded. `num_uniform` samples of an epoch are
    class-uniform: `epoch_order`.

    Raises UserError if `batch_size` cannot be divided so, or if `size`, the number of images, is smaller.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        num_uniform: int = 0,
    ):
        self.size, self.batch_size, self.seed, self.num_uniform = size, batch_size, seed, num_uniform
        self.rank, self.world_size = rank, world_size
        self.divide(accumulate)
        if size < batch_size:
            raise UserError(f"{size} training images are fewer than `batch_size` {batch_size}: lower it")
        self.steps_per_epoch = size // batch_size
        self.epoch = self.first_step = 0

    def divide(self, accumulate: int) -> None:
        """Make `accumulate` micro-batches of a process and step. Raises UserError if `batch_size` is no multiple."""
        self.accumulate, self.num_micro_batches = accumulate, self.world_size * accumulate
        if self.batch_size % self.num_micro_batches:
            raise UserError(
                f"`batch_size` {self.batch_size} cannot be divided into {self.world_size} processes x {accumulate} "
                f"micro-batches: give a multiple of {self.num_micro_batches}"
            )
        self.micro_batch_size = self.batch_size // self.num_micro_batches

    def set_position(self, epoch: int, step: int) -> None:
        """Start the next iteration at `step` of `epoch`."""
        self.epoch, self.first_step = epoch, step

    def order(self, epoch: int) -> np.ndarray:
        return epoch_order(self.size, seed=self.seed, epoch=epoch, num_uniform=self.num_uniform)

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order(self.epoch)
        for step in range(self.first_step, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            # Processes and accumulation divide a batch into the same micro-batches, so their sums have the same bits
            for number in range(self.rank, self.num_micro_batches, self.world_size):
                yield [(self.epoch, int(index)) for index in batch[number :: self.num_micro_batches]]


def epoch_order(size: int, *, seed: int, epoch: int, num_uniform: int = 0) -> np.ndarray:
    """The indices of all images in the order of an epoch.

    `num_uniform` of the images, chosen at random, give their places to the class-uniform samples: indices from `size`.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(size)
    if num_uniform:
        order[:num_uniform] = size + np.arange(num_uniform)
        rng.shuffle(order)
    return order


def resolve_accumulate(accumulate: int | str, *, batch_size: int, num_processes: int, is_independent: bool) -> int:
    """How many micro-batches each process computes, from the flag `accumulate`; with auto at least.

    If images are `is_independent` of each other (frozen batch norm), one process divides an even batch into two, as
    two processes would: then one and two processes compute the same bits on a CPU.
    """
    accumulate = 1 if accumulate == "auto" else accumulate
    if is_independent and num_processes == accumulate == 1 and batch_size % 2 == 0:
        return 2
    return accumulate
