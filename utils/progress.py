"""Progress bars, and lines above them."""

import sys
import time

from tqdm import tqdm

from utils.distributed import is_main_process


def progress(
    title: str, first: int, total: int | None, *, iterable=None, unit: str = "step", everywhere: bool = False
) -> tqdm:
    """A bar on the first process, or `everywhere`; a line every half minute if stderr is not a terminal.

    Use it in a with-block: a bar that an error leaves open is drawn again after the error's line.
    """
    is_terminal = sys.stderr.isatty()
    pause, is_shown = 0.2 if is_terminal else 30, everywhere or is_main_process()
    return tqdm(
        iterable, desc=title, initial=first, total=total, unit=unit, mininterval=pause, maxinterval=pause,
        unit_scale=unit == "B", leave=not is_terminal, dynamic_ncols=True, disable=not is_shown,
    )  # fmt: skip


class StepMeter:
    """Shows loss, learning rate and speed of the training steps on `bar`; `seconds` begin with those of before."""

    def __init__(self, bar: tqdm, batch_size: int, seconds: float):
        self.bar, self.batch_size = bar, batch_size
        self.seconds = self.seconds_before = seconds
        self.start, self.num_steps = time.monotonic(), 0

    @property
    def next_step_seconds(self) -> float:
        """The mean time of a step with the one that is counted next."""
        return (time.monotonic() - self.start) / (self.num_steps + 1)

    def update(self, loss: float, lr: float, left: str) -> float:
        """Count a step; `left` is the time that is left. Returns the images per second since the start of the meter."""
        elapsed = time.monotonic() - self.start
        self.num_steps += 1
        self.seconds = self.seconds_before + elapsed
        speed = self.num_steps * self.batch_size / elapsed
        self.bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}, {speed:.1f} images/s, {left}", False)
        self.bar.update()
        return speed


def validations_left(num_done: int, num_epochs: int, interval: int) -> int:
    """After `num_done` epochs: one every `interval` epochs, and one after the last."""
    return num_epochs // interval - num_done // interval + (num_epochs % interval > 0 and num_done < num_epochs)


def time_left(num_steps: int, num_validations: int, *, step_seconds: float, validation_seconds: float | None) -> str:
    """The time of so many steps and validations, such as "12 min left".

    Validations are counted beside it where none was timed yet: "10 min and 2 validations left".
    """
    seconds = num_steps * step_seconds + num_validations * (validation_seconds or 0)
    more = ""
    if num_validations and validation_seconds is None:
        more = f" and {num_validations} validation{'s'[: num_validations > 1]}"
    minutes = round(seconds / 60)
    if seconds < 60:
        text = f"{seconds:.0f} s"
    elif minutes < 120:
        text = f"{minutes} min"
    elif minutes < 48 * 60:
        text = f"{minutes // 60} h {minutes % 60:02d} min"
    else:
        text = f"{minutes / 1440:.1f} days"
    return f"{text}{more} left"


def print_above_bar(text: str) -> None:
    """Print a line on the first process, above the bar that is drawn."""
    if is_main_process():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
