"""Entries of the cache as files in a folder, for later runs too."""

import contextlib
import errno
import mmap
import os
import shutil
import time
import uuid
from pathlib import Path

import numpy as np

from dataloaders.cache.entry import BOOT_OFFSET, Arrays, checksum, encode, read_header, view_pixels
from dataloaders.cache.keys import Key
from utils.errors import writing

FIX = "give --cache another folder"
ABANDONED_SECONDS = 3600  # no writer takes so long


def find_boot() -> bytes:
    """16 bytes that differ after each start of the machine; none where the system does not tell."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except OSError:
        return b""


BOOT = find_boot()


class FolderStore:
    """`<folder>/deeplab-samples/<2 digits>/<30 digits of the key's name>`: an entry each.

    A file is written beside the others and renamed, so it is whole whenever a process ends. It is not fsynced, which
    would take longer than decoding: after a power failure its blocks may be missing. Therefore the pixels of a file
    that was written before the machine last started are compared with their checksum, once.
    """

    reserved_bytes = 1 << 30  # of the disk stay free for checkpoints

    def __init__(self, folder: Path):
        self.place, self.folder = str(folder), folder / "deeplab-samples"
        self.parts = self.folder / "parts"

    @classmethod
    def create(cls, folder: Path) -> "FolderStore":
        """Makes the folder and removes what killed processes left there. Raises UserError if it cannot be written."""
        store = cls(folder)
        with writing(folder, FIX):
            store.parts.mkdir(parents=True, exist_ok=True)
            if not os.access(store.parts, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            for part in store.parts.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another run removes it too
                    if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                        part.unlink()
        return store

    @classmethod
    def join(cls, address: str) -> "FolderStore":
        return cls(Path(address))

    @property
    def address(self) -> str:
        return self.place

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def path(self, key: Key) -> Path:
        name = key.name.hex()
        return self.folder / name[:2] / name[2:]

    def find(self, key: Key) -> Arrays | None:
        """Views of the file's pages; None if there is no valid entry."""
        path = self.path(key)
        try:
            with open(path, "rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch wants writable memory
        except (FileNotFoundError, PermissionError, ValueError):  # an empty file cannot be mapped
            return None
        header = read_header(content)
        if header is None or header.key != key or len(content) != header.num_bytes:
            return None
        entry = np.frombuffer(content, np.uint8)
        if header.boot != BOOT:
            if checksum(entry) != header.checksum:
                return None
            mark_as_checked(path)
        return view_pixels(entry, header.height, header.width)

    def add(self, key: Key, image: np.ndarray, label: np.ndarray) -> None:
        """Raises OSError; then nothing is left of it."""
        if self.free_bytes() < self.reserved_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path, part = self.path(key), self.parts / uuid.uuid4().hex
        path.parent.mkdir(exist_ok=True)
        try:
            with open(part, "xb") as file:
                file.write(encode(key, image, label, boot=BOOT))
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def mark_as_checked(path: Path) -> None:
    """So that no process compares the checksum again before the machine starts anew."""
    with contextlib.suppress(PermissionError), open(path, "r+b", buffering=0) as file:  # the file of another user
        file.seek(BOOT_OFFSET)
        file.write(BOOT)
