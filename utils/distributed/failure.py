"""How one of several processes ends after an error: at once, so that its peers end soon."""

import os
import re
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from utils.run.worker_signals import kill_workers

# In the words of gloo, NCCL and the store
LOST = re.compile(
    r"Connection (closed|reset) by peer( \[\S+\]:\d+)?|Broken pipe|remote process exited|(recv, got|send, sent) 0 bytes"
)
PATIENCE = 10.0  # seconds; torchrun sees a dead process within one, and ends the others


def is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def lost_connection(error: BaseException) -> str:
    """How a collective lost another process, in the words of its library; empty if `error` has another cause."""
    match = isinstance(error, RuntimeError) and LOST.search(str(error))
    return match[0] if match else ""


def wait_for_torchrun() -> None:
    """Let torchrun end this process, so that it reports the process that failed first."""
    time.sleep(PATIENCE)


def exit_at_once(report: Callable[[BaseException], int], error: BaseException) -> NoReturn:
    """Exit with the status that `report(error)` returns, 1 if it fails, without destructors and exit handlers.

    Those of NCCL wait for kernels that wait for this process.
    """
    status = 1
    try:
        status = report(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also where nobody reads what is printed
        kill_workers()
        os._exit(status)
