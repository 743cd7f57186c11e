"""Progress bars."""

import sys

from tqdm import tqdm

from utils.distributed import is_main_process


def progress(title: str, first: int, total: int, *, iterable=None, unit: str = "step") -> tqdm:
    """A bar on the first process; where nobody watches, a line every half minute.

    Use it in a with-block: a bar that an error leaves open is drawn again after the error's line.
    """
    is_watched = sys.stderr.isatty()
    pause = 0.2 if is_watched else 30
    return tqdm(
        iterable, desc=title, initial=first, total=total, unit=unit, mininterval=pause, maxinterval=pause,
        leave=not is_watched, dynamic_ncols=True, disable=not is_main_process(),
    )  # fmt: skip
