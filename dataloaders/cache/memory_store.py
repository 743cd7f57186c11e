"""Entries of the cache in memory that all processes of this machine share while they run."""

import errno
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dataloaders.cache.entry import HEADER, Arrays, encode, read_header, view_pixels
from dataloaders.cache.keys import Key
from utils.errors import UserError
from utils.memory import available_memory


class MemoryStore:
    """Memory of this machine that no file names: the system frees it when the last process that has it open ends.

    It is a sparse file in which the place of an entry follows from its name, so there is no index and nothing grows.
    An entry whose place is taken by another, or that is larger than a place, is not kept. An entry is written under a
    lock that the system releases when its process ends, the start of its header last.
    """

    place = "this machine's memory"
    reserved_bytes = 2 << 30  # for the network and the data workers
    place_bytes, num_places = 1 << 28, 1 << 34  # a place is free until it is written

    def __init__(self, file: int):
        self.file = file
        weakref.finalize(self, os.close, file)

    @classmethod
    def create(cls, _place: Path) -> "MemoryStore":
        """Raises UserError on systems without such memory."""
        if not hasattr(os, "memfd_create"):
            raise UserError("`cache` ram needs Linux: give a folder")
        file = os.memfd_create("deeplab-cache")
        os.ftruncate(file, cls.place_bytes * cls.num_places)
        return cls(file)

    @classmethod
    def join(cls, address: str) -> "MemoryStore":
        return cls(os.open(address, os.O_RDWR | os.O_CLOEXEC))

    @property
    def address(self) -> str:
        """Valid while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.file}"

    def __reduce__(self) -> tuple[Callable, tuple[str]]:  # for workers that are spawned, not forked
        return MemoryStore.join, (self.address,)

    def free_bytes(self) -> int:
        return available_memory()

    def offset(self, key: Key) -> int:
        return int.from_bytes(key.name[:8], "little") % self.num_places * self.place_bytes

    def find(self, key: Key) -> Arrays | None:
        """Views of the memory; None if there is no such entry."""
        offset = self.offset(key)
        header = read_header(os.pread(self.file, HEADER.size, offset))
        if header is None or header.key != key:
            return None
        content = mmap.mmap(self.file, header.num_bytes, access=mmap.ACCESS_COPY, offset=offset)
        return view_pixels(np.frombuffer(content, np.uint8), header.height, header.width)

    def add(self, key: Key, image: np.ndarray, label: np.ndarray) -> None:
        """Raises OSError if the memory is full."""
        import fcntl  # Windows has none

        entry, offset = encode(key, image, label, boot=b""), self.offset(key)
        if len(entry) > self.place_bytes:
            return
        if self.free_bytes() < self.reserved_bytes:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        fcntl.lockf(self.file, fcntl.LOCK_EX, 1, offset)
        try:
            if read_header(os.pread(self.file, HEADER.size, offset)) is None:
                for part in (slice(8, None), slice(8)):  # the first 8 bytes make it an entry
                    write_at(self.file, entry[part], offset + (part.start or 0))
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, offset)


def write_at(file: int, data: np.ndarray, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        count = os.pwrite(file, rest, offset)
        rest, offset = rest[count:], offset + count
