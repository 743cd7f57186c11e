"""Read every image and label of a dataset, and list all problems that would stop or spoil a training run.

    python -m dataloaders.check --dataset folder --data-root DIR [--split train val] [--json FILE]

Also prints the pixels and images of each class, the image sizes, and the images without a labeled pixel. Exits with
status 2 if there is a problem.
"""

import argparse
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataloaders import DATASETS, build_dataset, root_folder
from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.layout import first_five
from dataloaders.checks.mend import convert_command
from utils.errors import UserError, writing
from utils.flags import Parser, answer_early, non_negative_int, run_command
from utils.run.files import write_atomically


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m dataloaders.check", description="Check a dataset.")
    parser.add_argument("--dataset", choices=DATASETS, required=True)
    parser.add_argument("--data-root", metavar="DIR", help="as for train.py")
    parser.add_argument("--use-sbd", action="store_true", help="pascal: with SBD's images in train")
    parser.add_argument("--sbd-root", metavar="DIR", help="SBD's folder")
    parser.add_argument("--context-background", action="store_true", help="context: the background is a class")
    parser.add_argument("--split", nargs="+", default=["train", "val"], help="(default: train val)")
    parser.add_argument(
        "--workers", type=non_negative_int, default=os.cpu_count() or 1, help="processes that read (0: this one)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the complete report there")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

from dataloaders.checks.scan import ScanResult, scan


@dataclass
class SplitReport:
    """The result of one split; its fields are the keys in --json. `problems` stop or spoil a run, `notes` do not."""

    split: str
    pictures: int = 0  # number of images
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # name -> "pixels", "pictures" (images with it)
    ignored_pixels: int = 0
    other_pixels: dict[int, int] = field(default_factory=dict)  # label value that is no class -> pixels
    wholly_ignored: list[str] = field(default_factory=list)  # ids of images without a labeled pixel
    sizes: dict[str, int] = field(default_factory=dict)  # "WxH" -> images, the most frequent first


def check_split(build: Callable[..., SegmentationDataset], split: str, *, workers: int) -> SplitReport:
    """Check the layout, then every image with its label. `build(split, report=report)` gives the dataset."""
    report = SplitReport(split)
    try:
        dataset = build(split, report=report.problems.extend)
    except UserError as error:
        report.problems.append(error.line())
        return report
    report.pictures = len(dataset)
    report.notes += dataset.notes
    report.classes = {class_name: {"pixels": 0, "pictures": 0} for class_name in dataset.classes}
    for image_id, result in zip(dataset.ids, scan(f"checking {split}", dataset, workers=workers), strict=True):
        add_result(report, image_id, result)
    add_summary(report, dataset.ids)
    return report


def add_result(report: SplitReport, image_id: str, result: ScanResult) -> None:
    """Count one image with its label."""
    report.problems += [problem.line() for problem in result.problems]
    if result.size:
        size = "x".join(map(str, result.size))
        report.sizes[size] = report.sizes.get(size, 0) + 1
    if result.counts is None:
        return
    for entry, pixels in zip(report.classes.values(), result.counts, strict=False):
        entry["pixels"] += pixels
        entry["pictures"] += pixels > 0
    for value in range(len(report.classes), IGNORE_INDEX):
        if result.counts[value]:
            report.other_pixels[value] = report.other_pixels.get(value, 0) + result.counts[value]
    ignored = result.counts[IGNORE_INDEX]
    report.ignored_pixels += ignored
    if ignored == sum(result.counts):
        report.wholly_ignored.append(image_id)


def add_summary(report: SplitReport, ids: Sequence[str]) -> None:
    """Add what is known after the last image: the order of sizes, and problems and notes of the whole split."""
    report.sizes = dict(sorted(report.sizes.items(), key=lambda entry: -entry[1]))
    ignored = report.wholly_ignored
    if ids and len(ignored) == len(ids):
        report.problems.append(f"{report.split}: every label is 255 throughout, so nothing can be learned or scored")
    elif ignored:
        report.notes.append(f"{len(ignored)} images are wholly ignored (255): {first_five(ignored)}")
    if repeated := [image_id for image_id, count in Counter(ids).items() if count > 1]:
        report.notes.append(f"{len(repeated)} ids are listed more than once: {first_five(repeated)}")
    if absent := [name for name, entry in report.classes.items() if not entry["pixels"]]:
        report.notes.append(f"{len(absent)} classes do not occur: {first_five(absent)}")


def describe(report: SplitReport) -> str:
    """The report as text."""
    lines = [f"{report.split}: {report.pictures} images, {len(report.problems)} problems"]
    lines += [f"  problem: {problem}" for problem in report.problems]
    lines += [f"  note: {note}" for note in report.notes]
    if report.sizes:
        sizes = [f"{size} ({count})" for size, count in report.sizes.items()]
        lines.append(f"  {len(sizes)} sizes: {first_five(sizes)}")
    if report.classes:
        lines += [f"  {line}" for line in class_table(report)]
    return "\n".join(lines)


def class_table(report: SplitReport) -> list[str]:
    """A line for each class: name, pixels, their share, images."""
    total = max(1, report.ignored_pixels + sum(entry["pixels"] for entry in report.classes.values()))
    width = max(map(len, [*report.classes, "(ignored)"]))
    rows = [(name, entry["pixels"], f"{entry['pictures']:,}") for name, entry in report.classes.items()]
    rows.append(("(ignored)", report.ignored_pixels, ""))
    return [f"{'class':<{width}} {'pixels':>15} {'share':>7} {'images':>9}"] + [
        f"{name:<{width}} {pixels:>15,} {100 * pixels / total:>6.2f}% {images:>9}" for name, pixels, images in rows
    ]


def suggestion(root: Path, reports: Sequence[SplitReport]) -> str | None:
    """The convert command that would mend a dataset of the layout `folder`; None if the problems are of other kinds."""
    problems = [problem for report in reports for problem in report.problems]
    values: Counter = Counter()
    for report in reports:
        pixels = [entry["pixels"] for entry in report.classes.values()]
        values.update({**dict(enumerate(pixels)), **report.other_pixels, IGNORE_INDEX: report.ignored_pixels})
    return convert_command(root, problems, values, max(len(report.classes) for report in reports))


def check(args: argparse.Namespace) -> int:
    roots = {"root": args.data_root, "use_sbd": args.use_sbd, "sbd_root": args.sbd_root}
    build = functools.partial(build_dataset, args.dataset, context_background=args.context_background, **roots)
    reports = [check_split(build, split, workers=args.workers) for split in args.split]
    print("\n\n".join(map(describe, reports)))
    if args.json:
        content = {"dataset": args.dataset, "splits": {report.split: asdict(report) for report in reports}}
        with writing(args.json, "give another --json"):
            write_atomically(args.json, (json.dumps(content, indent=2) + "\n").encode())
    count = sum(len(report.problems) for report in reports)
    if count:
        if args.dataset == "folder" and (fix := suggestion(root_folder("folder", args.data_root), reports)):
            print(f"\nthis may mend it: {fix}")
        raise UserError(f"{args.dataset}: {count} problems would stop or spoil a training run: correct them first")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: check(args))


if __name__ == "__main__":
    sys.exit(main())
