"""Progress bars, and lines above them."""

import sys

from tqdm import tqdm

from utils.distributed import is_main_process


def progress(title: str, first: int, total: int, *, iterable=None, unit: str = "step") -> tqdm:
    """A bar on the first process; a line every half minute if stderr is not a terminal.

    Use it in a with-block: a bar that an error leaves open is drawn again after the error's line.
    """
    is_terminal = sys.stderr.isatty()
    pause = 0.2 if is_terminal else 30
    return tqdm(
        iterable, desc=title, initial=first, total=total, unit=unit, mininterval=pause, maxinterval=pause,
        leave=not is_terminal, dynamic_ncols=True, disable=not is_main_process(),
    )  # fmt: skip


def print_above_bar(text: str) -> None:
    """Print a line on the first process, above the bar that is drawn."""
    if is_main_process():
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
