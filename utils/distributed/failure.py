"""How one of several processes ends after an error: at once, so that its peers end soon."""

import os
import re
import sys
import time
from typing import NoReturn

from utils.run.worker_signals import kill_workers

LOST = re.compile(r"Connection (closed|reset) by peer|Broken pipe|remote process exited")  # gloo's and NCCL's words
PATIENCE = 10.0  # seconds; torchrun sees a dead process within one, and ends the others


def is_one_of_several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def has_lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because another process is gone: its error is the cause."""
    return isinstance(error, RuntimeError) and LOST.search(str(error)) is not None


def wait_for_torchrun() -> None:
    """Let torchrun end this process, so that it reports the process that failed first."""
    time.sleep(PATIENCE)


def exit_at_once(status: int) -> NoReturn:
    """Without destructors and exit handlers: those of NCCL wait for kernels that wait for this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    kill_workers()
    os._exit(status)
