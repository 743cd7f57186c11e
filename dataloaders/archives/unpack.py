"""Unpacks a folder of an archive. Only regular files and folders are written, and only below the target."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dataloaders.archives.members import Member, read_members, reading
from utils.errors import UserError, writing
from utils.progress import progress

CHUNK = 1 << 20  # bytes
FIX = "free space, or give another --root"


def unpack(archive: Path, inner: str, folder: Path) -> None:
    """Write what `archive` holds below its folder `inner` to `folder`.

    Call it again after an interruption: files of their full size are kept. Before anything is written, all members
    are checked. Raises UserError for a damaged archive, for a member that would be written elsewhere, for links and
    devices, and for more bytes than the disk has.
    """
    total = check_members(archive, inner, room=free_bytes(folder) + size_of(folder))
    with progress(f"unpacking {archive.name}", 0, total, unit="B") as bar:
        for member, path in wanted_members(archive, inner):
            if member.kind == "folder":
                make_folder(folder / path)
            else:
                make_folder((folder / path).parent)
                write_file(archive, member, folder / path)
            bar.update(member.size)


def check_members(archive: Path, inner: str, *, room: int) -> int:
    """The bytes below `inner`. Raises UserError if the archive declares more than `room` bytes, or is not safe."""
    total = wanted = 0
    for member in read_members(archive):
        if problem := unsafe(member, inner):
            raise UserError(f"{archive}: {member.name!r} {problem}: the archive is not the published one, delete it")
        total += member.size
        if total > room:  # here, not after the last: a bomb may declare members without end
            raise UserError(f"{archive} unpacks to more than the {gigabytes(room)} that the disk has: {FIX}")
        if below(member.name, inner) is not None:
            wanted += member.size
    if not wanted:
        raise UserError(f"{archive} holds no files in {inner}/: it is another archive, delete it")
    return wanted


def unsafe(member: Member, inner: str) -> str | None:
    """Why a member must not be unpacked; None if it is safe. Links and devices outside `inner` are not unpacked."""
    if leaves(member.name):
        return "would be written outside the folder"
    if member.kind == "link" and (below(member.name, inner) is not None or leaves(member.link)):
        return "is a link"
    if member.kind == "device" and below(member.name, inner) is not None:
        return "is a device or another special file"
    return None


def leaves(name: str) -> bool:
    """Whether a path in an archive is absolute or contains `..`; also with Windows' separators and drives."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", name))


def below(name: str, inner: str) -> PurePosixPath | None:
    """The path of a member relative to `inner`; None if it lies elsewhere."""
    path = PurePosixPath(name)
    return path.relative_to(inner) if path.is_relative_to(inner) else None


def wanted_members(archive: Path, inner: str) -> Iterator[tuple[Member, PurePosixPath]]:
    for member in read_members(archive):
        path = below(member.name, inner)
        if path is not None and unsafe(member, inner) is None:
            yield member, path


def write_file(archive: Path, member: Member, path: Path) -> None:
    """Write a member, unless `path` has its size already. Raises UserError if it has other bytes than it declares."""
    if path.is_file() and path.stat().st_size == member.size:
        return
    size = 0
    with writing(path, FIX), open(path, "wb") as file:
        for chunk in read_chunks(archive, member):
            size += len(chunk)
            if size > member.size:
                raise UserError(f"{archive}: {member.name!r} has more than the {member.size} bytes that it declares")
            file.write(chunk)
    if size < member.size:
        raise UserError(f"{archive} is damaged: {member.name!r} ends after {size} of {member.size} bytes: delete it")


def read_chunks(archive: Path, member: Member) -> Iterator[bytes]:
    with reading(archive):
        stream = member.open()
    with stream:
        while True:
            with reading(archive):
                chunk = stream.read(CHUNK)
            if not chunk:
                return
            yield chunk


def make_folder(path: Path) -> None:
    with writing(path, FIX):
        path.mkdir(parents=True, exist_ok=True)


def free_bytes(path: Path) -> int:
    """Free space of the disk on which `path` is or will be."""
    return shutil.disk_usage(next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())).free


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"
