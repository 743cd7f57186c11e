"""Which pictures make which batch: a function of seed and epoch alone, whatever the number of processes."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from errors import UserError


class StepSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index), the key of a training sample.

    A step's `batch_size` pictures are dealt to `world` processes and `accumulate` parts; this process, number `rank`,
    gets `accumulate` batches a step. What is left of an epoch after its last whole step is dropped.
    `set_position` before each pass over the loader: it starts there without loading what lies before.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int, rank: int = 0, world: int = 1, accumulate: int = 1):
        if batch_size % (world * accumulate):
            raise UserError(
                f"--batch-size {batch_size} cannot be dealt to {world} processes x {accumulate} parts: "
                f"take a multiple of {world * accumulate}"
            )
        if size < batch_size:
            raise UserError(f"{size} training pictures are fewer than --batch-size {batch_size}: lower it")
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.steps_per_epoch = size // batch_size
        self.epoch = self.first_step = 0

    def set_position(self, epoch: int, step: int) -> None:
        """Go on at `step` of `epoch`."""
        self.epoch, self.first_step = epoch, step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for step in range(self.first_step, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            # The same parts whether processes or accumulation make them: then their sums are the same bits
            for part in range(self.rank, self.world * self.accumulate, self.world):
                yield [(self.epoch, int(index)) for index in batch[part :: self.world * self.accumulate]]
