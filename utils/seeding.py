"""Randomness as a function of what it is for, not a state that must be carried along."""

import numpy as np
import torch


def seed_everything(*numbers: int) -> None:
    """Set torch's generators, on every device, to a state that depends on `numbers` alone."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))
