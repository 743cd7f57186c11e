"""Learning rate as a pure function of the step."""

import math

from errors import UserError

SCHEDULES = ("poly", "step", "cos")


def rate_factor(
    step: int, *, schedule: str, total_steps: int, warmup_steps: int = 0, power: float = 0.9, step_size: int = 1
) -> float:
    """What to multiply the initial rate with at `step` (from 0) of `total_steps`.

    poly: (1 - step / total) ** power (0.9: DeepLabV2); step: a tenth every `step_size` steps; cos: half a cosine. The
    first `warmup_steps` steps rise linearly on top.
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
