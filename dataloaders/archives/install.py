"""Makes the folders of a dataset from its archives. Interrupted at any moment and called again, it finishes."""

import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from dataloaders.archives.catalog import Archive, Entry
from dataloaders.archives.obtain import FIX, check_sum, downloads, find, obtain
from dataloaders.archives.unpack import free_bytes, gigabytes
from utils.errors import UserError, writing
from utils.progress import print_above_bar


def missing_archives(entry: Entry, root: Path) -> list[Archive]:
    """Those whose folder is not there. A folder appears when it is complete, so nothing else need be recorded."""
    return [archive for archive in entry.archives if not is_filled(root / archive.target)]


def is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def install(archive: Archive, root: Path, given: Path | None, *, verify: bool) -> None:
    """Obtain, check and unpack one archive. The folder is made beside its place and renamed at the end."""
    path = obtain(archive, root, given)
    target = root / archive.target
    part = part_folder(target, check_sum(path, archive, verify=verify))
    module, _, function = archive.maker.rpartition(".")
    getattr(import_module(module), function)(path, archive.inner, part)
    with writing(target, FIX):
        part.replace(target)


def part_folder(target: Path, digest: str) -> Path:
    """The unfinished folder for an archive with this checksum; those of other archives are removed."""
    part = target.with_name(f".{target.name}.{digest[:8]}.part")
    with writing(part, FIX):
        for other in target.parent.glob(f".{target.name}.*.part"):
            if other != part:
                shutil.rmtree(other)
        part.mkdir(parents=True, exist_ok=True)
    return part


def check_space(entries: Sequence[Entry], root: Path, given: Path | None, *, verify: bool) -> None:
    """Print what will be downloaded and unpacked. Raises UserError if the disk has less; without `verify`, a note."""
    missing = [archive for entry in entries for archive in missing_archives(entry, root)]
    to_download = sum(size_left(archive, root) for archive in missing if not find(archive, root, given))
    unpacked, free = sum(archive.unpacked for archive in missing), free_bytes(root)
    if missing:
        print_above_bar(
            f"{gigabytes(to_download)} to download, {gigabytes(unpacked)} unpacked, {gigabytes(free)} free in {root}"
        )
    if to_download + unpacked > free:
        short = f"{root} needs {gigabytes(to_download + unpacked)} free, it has {gigabytes(free)}"
        if verify:
            raise UserError(f"{short}: {FIX}")
        print_above_bar(f"note: {short}, if the files have their published sizes")


def size_left(archive: Archive, root: Path) -> int:
    """Bytes to download, after the part that an interrupted download left."""
    part = downloads(root) / f"{archive.file}.part"
    return max(0, archive.size - part.stat().st_size) if part.is_file() else archive.size


def check_counts(entry: Entry, root: Path, *, verify: bool) -> None:
    """Print the counts. Raises UserError if one is not as published; without `verify`, notes say so instead."""
    differing = []
    for what, published, count, place in entry.counts:
        found = count(root, place)
        print_above_bar(f"  {what}: {found:,}")
        if found != published:
            differing.append(f"{what} has {found:,}, published are {published:,} ({place})")
    if differing and verify:
        folders = " and ".join(str(root / archive.target) for archive in entry.archives)
        raise UserError(
            f"{entry.name}: {'; '.join(differing)}: delete {folders} and run this command again, or accept it by "
            "--no-verify"
        )
    for line in differing:
        print_above_bar(f"note: {line}")


def remove_downloads(entry: Entry, root: Path, given: Path | None) -> None:
    """Delete the downloaded archives, which are unpacked now. Those in `given`, the folder of --archives, stay."""
    if given and given.resolve() == downloads(root).resolve():
        return
    for path in (downloads(root) / f"{archive.file}{end}" for archive in entry.archives for end in ("", ".part")):
        if path.is_file():
            with writing(path, "delete it yourself"):
                path.unlink()
            print_above_bar(f"removed {path}")
