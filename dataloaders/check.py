"""Read every image and label of a dataset, and say all that would stop or spoil a training run.

    python -m dataloaders.check --dataset folder --data-root DIR [--split train val] [--json FILE]

Prints the problems, how often each class occurs, the sizes, and the images that are wholly ignored. Exits 2 where
there is a problem.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataloaders import DATASETS, build_dataset
from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.scan import ScanResult, scan
from utils.errors import UserError, writing
from utils.flags import Parser, non_negative_int, run_command
from utils.run.files import write_atomically


@dataclass
class SplitReport:
    """What was found in one split. `problems` stop or spoil a run; `notes` are worth a look."""

    split: str
    pictures: int = 0  # images: the key in --json
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # name -> pixels, pictures (images that show it)
    ignored_pixels: int = 0
    wholly_ignored: list[str] = field(default_factory=list)  # ids
    sizes: dict[str, int] = field(default_factory=dict)  # "WxH" -> images, the most frequent first


def check_split(name: str, split: str, *, workers: int, **roots) -> SplitReport:
    """Layout, then every pair; `roots` are those of `build_dataset`."""
    report = SplitReport(split)
    try:
        images = build_dataset(name, split, report=report.problems.extend, **roots)
    except UserError as error:
        report.problems.append(error.line())
        return report
    report.pictures = len(images)
    report.notes += images.notes
    report.classes = {key: {"pixels": 0, "pictures": 0} for key in images.classes}
    for key, found in zip(images.ids, scan(f"checking {split}", images, workers=workers), strict=True):
        add(report, key, found)
    conclude(report, images.ids)
    return report


def add(report: SplitReport, key: str, found: ScanResult) -> None:
    """Count one image."""
    report.problems += [problem.line() for problem in found.problems]
    if found.size:
        size = "x".join(map(str, found.size))
        report.sizes[size] = report.sizes.get(size, 0) + 1
    if found.counts is None:
        return
    counts = found.counts
    for entry, pixels in zip(report.classes.values(), counts, strict=False):
        entry["pixels"] += pixels
        entry["pictures"] += pixels > 0
    report.ignored_pixels += counts[IGNORE_INDEX]
    if counts[IGNORE_INDEX] == sum(counts):
        report.wholly_ignored.append(key)


def conclude(report: SplitReport, ids: Sequence[str]) -> None:
    """What only the whole split shows."""
    report.sizes = dict(sorted(report.sizes.items(), key=lambda entry: -entry[1]))
    if ids and len(report.wholly_ignored) == len(ids):
        report.problems.append(f"{report.split}: every label is 255 throughout, so nothing can be learnt or scored")
    elif report.wholly_ignored:
        report.notes.append(
            f"{len(report.wholly_ignored)} images are wholly ignored (255): {few(report.wholly_ignored)}"
        )
    if twice := [key for key, count in Counter(ids).items() if count > 1]:
        report.notes.append(f"{len(twice)} ids are listed more than once: {few(twice)}")
    if absent := [name for name, entry in report.classes.items() if not entry["pixels"]]:
        report.notes.append(f"{len(absent)} classes occur nowhere: {few(absent)}")


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def describe(report: SplitReport) -> str:
    """The report as text."""
    lines = [f"{report.split}: {report.pictures} images, {len(report.problems)} problems"]
    lines += [f"  problem: {problem}" for problem in report.problems]
    lines += [f"  note: {note}" for note in report.notes]
    if report.sizes:
        sizes = [f"{size} ({count})" for size, count in report.sizes.items()]
        lines.append(f"  {len(sizes)} sizes: {few(sizes)}")
    if report.classes:
        lines += [f"  {line}" for line in histogram(report)]
    return "\n".join(lines)


def histogram(report: SplitReport) -> list[str]:
    """A line a class: name, pixels, their share, images."""
    total = max(1, report.ignored_pixels + sum(entry["pixels"] for entry in report.classes.values()))
    width = max(map(len, [*report.classes, "(ignored)"]))
    rows = [(name, entry["pixels"], f"{entry['pictures']:,}") for name, entry in report.classes.items()]
    rows.append(("(ignored)", report.ignored_pixels, ""))
    return [f"{'class':<{width}} {'pixels':>15} {'share':>7} {'images':>9}"] + [
        f"{name:<{width}} {pixels:>15,} {100 * pixels / total:>6.2f}% {images:>9}" for name, pixels, images in rows
    ]


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m dataloaders.check", description="Check a dataset.")
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--data-root", metavar="DIR", help="as for train.py")
    parser.add_argument("--use-sbd", action="store_true", help="pascal: with SBD's images in train")
    parser.add_argument("--sbd-root", metavar="DIR", help="SBD's folder")
    parser.add_argument("--split", nargs="+", default=["train", "val"], help="(default: train val)")
    parser.add_argument(
        "--workers", type=non_negative_int, default=os.cpu_count() or 1, help="processes that read (0: none)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there too")
    return parser


def check(args: argparse.Namespace) -> int:
    roots = {"root": args.data_root, "use_sbd": args.use_sbd, "sbd_root": args.sbd_root}
    reports = [check_split(args.dataset, split, workers=args.workers, **roots) for split in args.split]
    print("\n\n".join(map(describe, reports)))
    if args.json:
        content = {"dataset": args.dataset, "splits": {report.split: asdict(report) for report in reports}}
        with writing(args.json, "give another --json"):
            write_atomically(args.json, (json.dumps(content, indent=2) + "\n").encode())
    count = sum(len(report.problems) for report in reports)
    if count:
        raise UserError(f"{args.dataset}: {count} problems would stop or spoil a training run: correct them first")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: check(args))


if __name__ == "__main__":
    sys.exit(main())
