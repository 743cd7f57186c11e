"""Progress bars."""

import sys

from tqdm import tqdm

from utils.distributed import is_main_process


def progress(title: str, first: int, total: int, *, iterable=None, unit: str = "step") -> tqdm:
    """A bar on the first process; where nobody watches, a line every half minute."""
    pause = 0.2 if sys.stderr.isatty() else 30
    return tqdm(
        iterable, desc=title, initial=first, total=total, unit=unit, mininterval=pause, maxinterval=pause,
        leave=False, dynamic_ncols=True, disable=not is_main_process(),
    )  # fmt: skip
