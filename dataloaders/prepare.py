"""Download, check and unpack published datasets, and remember where they lie.

    python -m dataloaders.prepare pascal coco [--root DIR] [--archives DIR] [--no-verify]

Interrupted at any moment and started again, it continues; what is there already is kept. docs/data.md describes the
datasets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dataloaders.archives.catalog import CATALOG, Entry
from dataloaders.archives.install import (
    check_counts,
    check_space,
    install,
    missing_archives,
    remove_downloads,
)
from dataloaders.archives.obtain import FIX, check_account, downloads
from dataloaders.archives.remember import earlier_root, remember
from dataloaders.checks.layout import raise_first
from utils.cache import locked
from utils.errors import UserError
from utils.flags import Parser, run_command
from utils.progress import print_above_bar

DEFAULT_ROOT = "datasets"
EPILOG = """The root folders are remembered in $XDG_CONFIG_HOME/deeplab/roots.json, else in
~/.config/deeplab/roots.json. DEEPLAB_MIRROR=URL downloads every file from URL/<its published name>."""


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m dataloaders.prepare", description="Get published datasets.", epilog=EPILOG)
    parser.add_argument(
        "names", nargs="+", metavar="NAME", choices=CATALOG, help=f"one or more of {', '.join(CATALOG)}"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR",
        help=f"the datasets' folder (default: where the dataset was prepared before, else {DEFAULT_ROOT}/ here)",
    )  # fmt: skip
    parser.add_argument(
        "--archives", type=Path, metavar="DIR",
        help="use the archives in DIR, under their published names; they stay there, missing ones are downloaded",
    )  # fmt: skip
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="accept other checksums and counts, and print them"
    )
    return parser


def prepare(args: argparse.Namespace) -> int:
    if args.archives and not args.archives.expanduser().is_dir():
        raise UserError(f"`archives` {args.archives}: no such folder: give the one that holds the archives")
    given = args.archives and args.archives.expanduser().absolute()
    entries = [CATALOG[name] for name in dict.fromkeys(args.names)]
    places = [(entry, find_root(entry, args.root)) for entry in entries]
    for root in dict.fromkeys(root for _, root in places):
        here = [entry for entry, place in places if place == root]
        for entry in here:
            check_account(entry, missing_archives(entry, root), root, given)
        check_space(here, root, given, verify=args.verify)
    for entry, root in places:
        prepare_one(entry, root, given, verify=args.verify)
    return 0


def find_root(entry: Entry, root: Path | None) -> Path:
    return (root or earlier_root(entry.roots) or Path(DEFAULT_ROOT)).expanduser().absolute()


def prepare_one(entry: Entry, root: Path, given: Path | None, *, verify: bool) -> None:
    """Make the folders that are missing, count, remember; one process at a time."""
    print_above_bar(f"{entry.name}: {entry.title} ({entry.license})")
    waiting = f"waiting for another process that prepares {entry.name} in {root}"
    with locked(downloads(root) / entry.name, fix=FIX, waiting=waiting):
        for archive in missing_archives(entry, root):
            install(archive, root, given, verify=verify)
        check_counts(entry, root, verify=verify)
        remove_downloads(entry, root, given)
    remember({name: root / target for name, target in entry.roots.items()})
    if entry is CATALOG["coco"]:
        draw_coco_labels(root / entry.roots["coco"] / "annotations")
    first = root / next(iter(entry.roots.values()))
    print_above_bar(f"{entry.name} is ready: {entry.next_command.format(root=first)}")


def draw_coco_labels(folder: Path) -> None:
    """So that the first training starts at once. Raises UserError if an annotation file is invalid."""
    from dataloaders.coco_index import open_index  # other datasets do not need pycocotools

    for path in sorted(folder.glob("instances_*.json")):
        open_index(path, raise_first)


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: prepare(args))


if __name__ == "__main__":
    sys.exit(main())
