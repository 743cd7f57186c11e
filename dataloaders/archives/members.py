"""The members of a tar or zip archive, one after the other."""

import contextlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from utils.errors import UserError

UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError,
    ValueError, RuntimeError,  # zipfile's, for encrypted members and unknown compression
)  # fmt: skip


class Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", "link" (symbolic or hard), or "device" (all else)
    size: int  # bytes that its header declares
    link: str  # what a link in a tar archive points at
    open: Callable[[], IO[bytes]]


class CheckedInfo(tarfile.TarInfo):
    """A damaged or missing header is an error: tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # the mark of the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


@contextlib.contextmanager
def reading(archive: Path) -> Iterator[None]:
    """Raise UserError that `archive` is damaged, for an error of the libraries that read it."""
    try:
        yield
    except UserError:
        raise
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{archive} is damaged or incomplete ({reason}): delete it and run this command again to download it"
        ) from error


def read_members(archive: Path) -> Iterator[Member]:
    """The members in their order. Raises UserError for a damaged archive."""
    members = zip_members(archive) if archive.suffix == ".zip" else tar_members(archive)
    while True:
        with reading(archive):  # not around `yield`: the errors of who uses the members are others
            member = next(members, None)
        if member is None:
            return
        yield member


def tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive, tarinfo=CheckedInfo) as tar:
        for info in tar:
            kind = "link" if info.issym() or info.islnk() else "folder" if info.isdir() else "device"
            kind = "file" if info.isfile() else kind
            yield Member(info.name, kind, info.size, info.linkname, lambda info=info: tar.extractfile(info))


def zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16  # 0 where the archive was made without Unix modes
            is_special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = "folder" if info.is_dir() else "device" if is_special else "file"
            kind = "link" if stat.S_ISLNK(mode) else kind
            yield Member(info.filename, kind, info.file_size, "", lambda info=info: file.open(info))
