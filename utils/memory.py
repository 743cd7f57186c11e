"""The memory that processes take, and can still take."""

import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# glibc's mallopt(3): its parameters, and our values in bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_THRESHOLD, MMAP_THRESHOLD = 2**28, 2**25
MALLOC_VARIABLES = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"}


def keep_freed_memory() -> None:
    """Let this process keep up to TRIM_THRESHOLD of freed memory for the next tensors.

    By itself glibc keeps a quarter of it. To get pages from the system again takes time: about 3% of a training step of
    ResNet-101 on the CPU. MMAP_THRESHOLD is the value to which glibc's own rises, and must be set beside the other.
    Does nothing without glibc, or where the environment sets these values.
    """
    if platform.libc_ver()[0] == "glibc" and not MALLOC_VARIABLES & set(os.environ):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)


def resident(row: str) -> int:
    """Bytes of resident memory of this process: VmRSS now, VmHWM at most. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{row}:"))


def reset_peak() -> None:
    """VmHWM becomes VmRSS."""
    Path("/proc/self/clear_refs").write_text("5")


class Groups(NamedTuple):
    """How a version of Linux's control groups names its files."""

    start: str  # of the name of this process's group, in a line of /proc/self/cgroup
    root: Path
    limit: str
    used: str
    droppable: str  # in memory.stat: pages of files


VERSIONS = (
    Groups("0::", Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    Groups("memory:", Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes",
           "total_inactive_file"),
)  # fmt: skip


def available_memory() -> int:
    """Bytes: of the machine, or of the container or job that this process is in, whichever is less. Linux only."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return min([1024 * kilobytes, *left_in_groups()])


def left_in_groups() -> Iterator[int]:
    """Bytes that each group with a limit can still take: this process's, and those around it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        for groups in VERSIONS:
            _, found, name = line.partition(groups.start)
            if not found:
                continue
            group = groups.root / name.strip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(groups.root) and (folder / groups.limit).is_file():
                    yield from left_in_group(folder, groups)


def left_in_group(folder: Path, groups: Groups) -> Iterator[int]:
    limit = (folder / groups.limit).read_text().strip()
    if limit == "max":
        return
    counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    used = int((folder / groups.used).read_text()) - int(counts[groups.droppable])
    yield max(0, int(limit) - used)
