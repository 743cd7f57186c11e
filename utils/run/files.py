"""Files that are whole or not there, whatever moment the process or the disk fails at."""

import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Written beside, fsynced, renamed. On failure (OSError) the old file stays and nothing is left behind."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # a folder that is gone or read-only refuses this too
            part.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the rename itself may be lost with the power
    finally:
        os.close(folder)


def append_whole(path: Path, data: bytes) -> None:
    """Add all of `data` at the end. On failure (OSError) the file is cut back to what it was."""
    is_new = not path.exists()
    with open(path, "ab", buffering=0) as file:
        size, rest = file.seek(0, os.SEEK_END), memoryview(data)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except BaseException:
            file.truncate(size)
            if is_new:
                path.unlink()
            raise


def clear_parts(folder: Path, name: str = "*") -> None:
    """Remove what killed processes, of whatever number, left half written for the file `name`."""
    for part in folder.glob(f".{name}.*.part"):
        part.unlink(missing_ok=True)
