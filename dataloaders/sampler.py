"""Which images make which batch: a function of seed and epoch alone, whatever the number of processes."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from utils.errors import UserError


class ResumableBatchSampler(Sampler[list[tuple[int, int]]]):
    """Micro-batches of (epoch, index), the key of a training sample.

    The `batch_size` images of a step are divided into `accumulate` micro-batches for each of `world_size` processes;
    this process, number `rank`, gets its `accumulate` ones. What remains after the last full step of an epoch is
    dropped. `set_position` before each pass over the loader: it starts there and loads nothing before it.
    """

    def __init__(
        self, size: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1, accumulate: int = 1
    ):
        self.num_micro_batches = world_size * accumulate
        if batch_size % self.num_micro_batches:
            raise UserError(
                f"`batch_size` {batch_size} cannot be divided into {world_size} processes x {accumulate} "
                f"micro-batches: give a multiple of {self.num_micro_batches}"
            )
        if size < batch_size:
            raise UserError(f"{size} training images are fewer than `batch_size` {batch_size}: lower it")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.accumulate = rank, world_size, accumulate
        self.steps_per_epoch = size // batch_size
        self.epoch = self.first_step = 0

    def set_position(self, epoch: int, step: int) -> None:
        """Continue at `step` of `epoch`."""
        self.epoch, self.first_step = epoch, step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for step in range(self.first_step, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            # The same micro-batches whether processes or accumulation make them: then their sums are the same bits
            for number in range(self.rank, self.num_micro_batches, self.world_size):
                yield [(self.epoch, int(index)) for index in batch[number :: self.num_micro_batches]]


def num_micro_batches(accumulate: int, *, batch_size: int, num_processes: int, is_independent: bool) -> int:
    """Micro-batches of each process. One process uses at least the two that two processes would use, where images are
    `is_independent` of each other (frozen batch norm): then one and two processes compute the same bits on a CPU.
    """
    if is_independent and num_processes == accumulate == 1 and batch_size % 2 == 0:
        return 2
    return accumulate
