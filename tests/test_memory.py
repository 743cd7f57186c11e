"""What the process keeps of freed memory."""

import os
import platform
import subprocess
import sys

import pytest
from running import ROOT

FREEING = """
import sys
import numpy as np
from utils.memory import keep_freed_memory, resident
if sys.argv[1] == "keep":
    keep_freed_memory()
blocks = [np.ones(2**24, np.uint8) for _ in range(2)]  # glibc raises its thresholds when one is freed
blocks.clear()
before = resident("VmRSS")
blocks = [np.ones(2**24, np.uint8) for _ in range(12)]
while blocks:
    blocks.pop()
print(resident("VmRSS") - before)
"""


def kept(how: str, **more: str) -> int:
    """Bytes left of twelve freed arrays of 16 MiB in a fresh process with `more` in its environment."""
    command = [sys.executable, "-c", FREEING, how]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | more, capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept():
    assert kept("keep") > 2**27 > kept("plain")
    assert kept("keep", MALLOC_TRIM_THRESHOLD_="131072") < 2**27
