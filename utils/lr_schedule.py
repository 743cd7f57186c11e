"""The learning rate as a pure function of the step.

Not torch.optim.lr_scheduler: the state of a scheduler would be one more part of a checkpoint, and would contradict the
flags of a run that is resumed with another schedule.
"""

import functools
import math
from collections.abc import Callable

from utils.errors import UserError

SCHEDULES = ("poly", "step", "cos")


def build_schedule(
    schedule: str, *, epochs: int, steps_per_epoch: int, warmup_steps: int, step_epochs: int
) -> Callable[[int], float]:
    """`lr_factor` as a function of the step; `step_epochs` is the interval of the step schedule in epochs."""
    return functools.partial(
        lr_factor, schedule=schedule, total_steps=epochs * steps_per_epoch, warmup_steps=warmup_steps,
        step_size=step_epochs * steps_per_epoch,
    )  # fmt: skip


def lr_factor(
    step: int, *, schedule: str, total_steps: int, warmup_steps: int = 0, power: float = 0.9, step_size: int = 1
) -> float:
    """The learning rate at `step` (from 0) of `total_steps`, relative to the initial one: 0..1.

    poly: (1 - step / total_steps) ** power, with 0.9 from DeepLabV2; step: divided by 10 every `step_size` steps; cos:
    half a cosine from 1 to 0. Over the first `warmup_steps` steps all are multiplied by a linear rise to 1. Raises
    UserError for an unknown `schedule`.
    """
    done = min(step / total_steps, 1.0)
    if schedule == "poly":
        factor = (1 - done) ** power
    elif schedule == "step":
        factor = 0.1 ** (step // step_size)
    elif schedule == "cos":
        factor = 0.5 * (1 + math.cos(math.pi * done))
    else:
        raise UserError(f"unknown schedule {schedule!r}: choose one of {', '.join(SCHEDULES)}")
    return factor * min(1.0, (step + 1) / (warmup_steps + 1))
