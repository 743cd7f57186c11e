"""Finds or downloads the archives, and checks their sums."""

import os
from pathlib import Path

from dataloaders.archives.catalog import Archive, Entry
from utils.download import download, file_digest
from utils.errors import UserError, writing
from utils.progress import print_above_bar, progress

FIX = "free space, or give another --root"


def downloads(root: Path) -> Path:
    """The folder below the root that holds archives until they are unpacked and counted."""
    return root / "archives"


def address(archive: Archive) -> str | None:
    """Where to download a file: at DEEPLAB_MIRROR, under its published name, if that is set. None: nowhere."""
    mirror = os.environ.get("DEEPLAB_MIRROR")
    if mirror and not mirror.startswith(("http://", "https://")):
        raise UserError(f"DEEPLAB_MIRROR is {mirror!r}: it must begin with http:// or https://")
    return f"{mirror.rstrip('/')}/{archive.file}" if mirror else archive.url


def find(archive: Archive, root: Path, given: Path | None) -> Path | None:
    """The complete file in `given`, the folder of --archives, or among the downloads."""
    folders = [folder for folder in (given, downloads(root)) if folder]
    names = [name for name in (archive.file, archive.other_name) if name]
    return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)


def obtain(archive: Archive, root: Path, given: Path | None) -> Path:
    """The complete file, downloaded if it is not there."""
    if path := find(archive, root, given):
        print_above_bar(f"using {path}")
        return path
    path = downloads(root) / archive.file
    with writing(path, FIX):
        path.parent.mkdir(parents=True, exist_ok=True)
        download(
            address(archive), path, fix=f"download {archive.file} by other means and give its folder by --archives"
        )
    return path


def check_sum(path: Path, archive: Archive, *, verify: bool) -> str:
    """The MD5 sum of a file. Raises UserError if another is published; without `verify` a note says so instead."""
    with progress(f"checking {path.name}", 0, max(1, path.stat().st_size), unit="B") as bar:
        found = file_digest(path, "md5", bar.update)
    if archive.md5 is None:
        print_above_bar(f"{path.name}: no checksum is published, it has MD5 {found}")
    elif found != archive.md5:
        differs = f"{path} has the MD5 sum {found}, published is {archive.md5}"
        if verify:
            raise UserError(
                f"{differs}: it is damaged or another edition, delete it and run this command again to download it, or "
                "accept it by --no-verify"
            )
        print_above_bar(f"note: {differs}")
    return found


def check_account(entry: Entry, missing: list[Archive], root: Path, given: Path | None) -> None:
    """Raise UserError with what to do if a file needs an account and is not there."""
    if any(address(archive) is None and find(archive, root, given) is None for archive in missing):
        names = " and ".join(archive.file for archive in entry.archives)
        raise UserError(
            f"{entry.name} needs an account: log in at {entry.account}, download {names} into a folder DIR, then run "
            f"python -m dataloaders.prepare {entry.name} --archives DIR"
        )
