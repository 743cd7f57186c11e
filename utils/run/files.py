"""Files that are complete or absent, no matter when the process or the disk fails."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, data: bytes | memoryview | Callable[[BinaryIO], object]) -> None:
    """As `open_atomically`, of a file with these bytes, or with what this function writes."""
    with open_atomically(path) as file:
        data(file) if callable(data) else file.write(data)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path`, which after the block is fsynced and renamed to `path`.

    Raises OSError; then, and after any error of the block, the old file stays and no partial file remains.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # a missing or read-only folder refuses this too
            part.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Otherwise a power failure may undo a rename in it."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder; elsewhere a folder may be writable but not readable
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Let `folder` hold `files` and nothing else: they are written into a folder beside it, which is renamed.

    Raises OSError; then the old folder stays.
    """
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{ending}") for ending in ("part", "old"))
    try:
        part.mkdir(parents=True)
        for name, data in files.items():
            write_atomically(part / name, data)
        if folder.is_dir():
            os.replace(folder, old)
        os.replace(part, folder)
    except BaseException:
        if old.is_dir() and not folder.is_dir():
            os.replace(old, folder)
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def append_whole(path: Path, data: bytes) -> None:
    """Append all of `data`. Raises OSError; then the file is as before."""
    is_new = not path.exists()
    with open(path, "ab", buffering=0) as file:
        size, rest = file.seek(0, os.SEEK_END), memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]  # a disk that becomes full writes less than it was given
        except BaseException:
            file.truncate(size)
            if is_new:
                path.unlink()
            raise


def clear_parts(folder: Path, name: str = "*") -> None:
    """Remove the partial files, of all files or of `name`, that killed processes left in `folder`."""
    for part in folder.glob(f".{name}.*.part"):
        part.unlink(missing_ok=True)
