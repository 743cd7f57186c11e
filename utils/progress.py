"""Progress bars, and lines above them."""

import sys
import time

from tqdm import tqdm

from utils.distributed import is_main_process


def progress(title: str, first: int, total: int | None, *, iterable=None, unit: str = "step") -> tqdm:
    """A bar on the first process; a line every half minute if stderr is not a terminal.

    Use it in a with-block: a bar that an error leaves open is drawn again after the error's line.
    """
    is_terminal = sys.stderr.isatty()
    pause = 0.2 if is_terminal else 30
    return tqdm(
        iterable, desc=title, initial=first, total=total, unit=unit, mininterval=pause, maxinterval=pause,
        unit_scale=unit == "B", leave=not is_terminal, dynamic_ncols=True, disable=not is_main_process(),
    )  # fmt: skip


class StepMeter:
    """Shows loss, learning rate and speed of the training steps on `bar`; `seconds` begin with those of before."""

    def __init__(self, bar: tqdm, batch_size: int, seconds: float):
        self.bar, self.batch_size = bar, batch_size
        self.seconds = self.seconds_before = seconds
        self.start, self.num_steps = time.monotonic(), 0

    def update(self, loss: float, lr: float) -> float:
        """Count a step. Returns the images per second since the start of the meter."""
        elapsed = time.monotonic() - self.start
        self.num_steps += 1
        self.seconds = self.seconds_before + elapsed
        speed = self.num_steps * self.batch_size / elapsed
        self.bar.set_postfix_str(f"loss {loss:.4f}, lr {lr:.2e}, {speed:.1f} images/s", False)
        self.bar.update()
        return speed


def print_above_bar(text: str) -> None:
    """Print a line on the first process, above the bar that is drawn."""
    if is_main_process():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
