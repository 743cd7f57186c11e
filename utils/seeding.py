"""Randomness as a function of given numbers, so that no generator state must be saved."""

import numpy as np
import torch


def seed_everything(*numbers: int) -> None:
    """Seed torch's generators on all devices with a hash of `numbers` (each 0 or more)."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))
