"""train.py that kills itself by SIGKILL when it reaches a place for the n-th time. For benchmarks.kill_resume.

python -m benchmarks.killed_train validation:30 --dataset demo ...
"""

import functools
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence

import train
import utils.run.files
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder
from utils.run.writer import RetryingWriter
from utils.scoring.metrics import ConfusionMatrix


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_written(descriptor: int) -> None:
    """Leave half of a file on disk, as a kill in the middle of writing does."""
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
    die()


def is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


# Where a run may die: (owner, name of its function, how to die, which of its calls count, before the call or after it)
PLACES: dict[str, tuple] = {
    "step": (Recorder, "log_step", lambda *_: die(), lambda *_: True, True),
    "write": (utils.run.files.os, "fsync", die_half_written, is_file, True),
    "rename": (utils.run.files.os, "replace", lambda *_: die(), lambda *_: True, False),
    "log": (RetryingWriter, "append", lambda *_: die(), lambda *_: True, False),
    "validation": (ConfusionMatrix, "update", lambda *_: die(), lambda *_: True, True),
    "resume": (RunFolder, "truncate_to", lambda *_: die(), lambda *_: True, False),
}


def arm(place: str, count: int) -> None:
    """Let this process die when it reaches `place` for the `count`-th time."""
    owner, name, end, counts, is_before = PLACES[place]
    setattr(owner, name, counted(getattr(owner, name), count, end, counts, is_before))


def counted(function: Callable, count: int, end: Callable, counts: Callable, is_before: bool) -> Callable:
    """`function`, and `end` with the same arguments at its `count`-th call of those for which `counts` is true."""
    calls = 0

    @functools.wraps(function)
    def wrapper(*arguments, **named):
        nonlocal calls
        calls += bool(counts(*arguments))
        is_last = calls == count
        if is_last and is_before:
            end(*arguments)
        result = function(*arguments, **named)
        if is_last:
            end(*arguments)
        return result

    return wrapper


def main(argv: Sequence[str] | None = None) -> int:
    moment, *flags = sys.argv[1:] if argv is None else argv
    place, count = moment.split(":")
    arm(place, int(count))
    return train.main(flags)


if __name__ == "__main__":
    sys.exit(main())
