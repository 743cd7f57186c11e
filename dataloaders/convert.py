"""Make the layout of `--dataset folder` from images and annotations as other tools write them.

    python -m dataloaders.convert --images DIR --masks DIR --classes FILE --out mine --val 0.2 --dry-run

Reads mask images (values, palette or colors; CVAT, Roboflow), COCO JSON and labelme JSON: docs/data.md. Everything is
read and checked before anything is written. Exits with status 2 and the flag to give for what has no plain meaning.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataloaders.formats.masks import POLICIES, MaskOptions
from dataloaders.formats.write import LINKS, check_output, write_dataset
from utils.flags import DefaultsFormatter, Parser, answer_early, checked, non_negative_int, run_command


def share(text: str) -> float:
    return checked(float, text, lambda value: 0 < value < 1, "a number between 0 and 1")


def mask_value(text: str) -> int:
    return checked(int, text, lambda value: 0 <= value <= 255, "a whole number from 0 to 255")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dataloaders.convert", description="Make the layout of --dataset folder.",
        formatter_class=DefaultsFormatter,
    )  # fmt: skip
    group = parser.add_argument_group("what you have")
    group.add_argument("--images", type=Path, metavar="DIR", required=True, help="images, or a whole export")
    group.add_argument(
        "--masks", type=Path, nargs="+", metavar="PATH", help="a folder, or JSON files (default: --images)"
    )
    group.add_argument(
        "--classes", type=Path, metavar="FILE", help="a line `name` or `name r g b` (default: the export's)"
    )
    group.add_argument("--suffix", metavar="TEXT", help="ending of mask names beside _mask, _label, _gt and the like")
    group.add_argument("--image-suffix", metavar="TEXT", help="ending of image names that masks do not have")
    group = parser.add_argument_group("what masks mean")
    group.add_argument(
        "--ignore",
        nargs="+",
        default=[],
        metavar="VALUE",
        help="what becomes 255: values, R,G,B, `transparent`, names (default: the value 255)",
    )
    group.add_argument("--first-id", type=mask_value, default=0, metavar="N", help="the value of class 0")
    group.add_argument("--values", type=mask_value, nargs="+", metavar="V", help="the value of each class, as in 0 255")
    group.add_argument("--unknown", choices=POLICIES, help="what pixels of no class become (default: an error)")
    group.add_argument("--skip-unmatched", action="store_true", help="leave out images or masks without the other")
    group = parser.add_argument_group("what you get")
    group.add_argument("--out", type=Path, metavar="DIR", required=True, help="new folder")
    group.add_argument("--val", type=share, metavar="SHARE", help="share of val (default: the source's train and val)")
    group.add_argument("--seed", type=non_negative_int, default=1, help="of the split")
    group.add_argument("--link", choices=LINKS, help="link the images instead of copying them")
    group.add_argument("--dry-run", action="store_true", help="read and report, write nothing")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

from dataloaders.check import SplitReport, add_result, add_summary, describe
from dataloaders.checks.scan import ScanResult
from dataloaders.formats.find import Place, open_source
from dataloaders.formats.reading import presence, read_all
from dataloaders.formats.source import Source, class_counts, raise_all
from dataloaders.formats.split import kept_splits, new_splits, read_lists


def convert(args: argparse.Namespace) -> int:
    masks = args.masks or [args.images]
    check_output(args.out, [args.images, *masks])
    place = Place(args.images, masks, args.suffix, args.image_suffix, args.skip_unmatched)
    options = MaskOptions(args.ignore, args.first_id, args.values, args.unknown)
    source = open_source(place, args.classes, options)
    readings = read_all(source)
    numbers = source.assign(readings)
    counts = [class_counts(reading, numbers) for reading in readings]
    splits = make_splits(source, counts, args.val, args.seed)
    print_source(source)
    kept = "split: the source's " + ("lists" if read_lists(place.folders) else "folders or files")
    print(kept if args.val is None else f"split: --val {args.val} with --seed {args.seed}")
    print_splits(source, splits, counts)
    if args.dry_run:
        print(f"dry run: {args.out} is not written")
        return 0
    write_dataset(source, splits, numbers, out=args.out, link=args.link)
    print(f"{args.out} is complete: python train.py --dataset folder --data-root {args.out}")
    return 0


def make_splits(
    source: Source, counts: Sequence[np.ndarray], val_share: float | None, seed: int
) -> dict[str, list[str]]:
    """{split: ids}: the source's own, or new ones with a share of val."""
    ids, splits = [item.id for item in source.items], [item.split for item in source.items]
    if val_share is None:
        return kept_splits(ids, splits)
    return new_splits(ids, splits, presence(counts, len(source.classes)), val_share, seed)


def print_source(source: Source) -> None:
    """What was found, the meaning of each class, and notes."""
    print(f"{len(source.items)} images, each with a {source.kind}")
    print(f"{len(source.classes)} classes of {source.class_file}:")
    for number, name in enumerate(source.classes):
        meaning = source.describe(number)
        print(f"  {number:>3} {name}" + (f" <- {meaning}" if meaning else ""))
    for note in source.notes:
        print(f"note: {note}")


def print_splits(source: Source, splits: Mapping[str, Sequence[str]], counts: Sequence[np.ndarray]) -> None:
    """The pixels and images of each class in each split. Raises UserError for a split without labeled pixels."""
    by_id = dict(zip([item.id for item in source.items], counts, strict=True))
    reports = [split_report(split, source.classes, ids, by_id) for split, ids in splits.items()]
    for report in reports:
        print(f"\n{describe(report)}")
    raise_all([problem for report in reports for problem in report.problems])


def split_report(
    split: str, classes: Sequence[str], ids: Sequence[str], counts: Mapping[str, np.ndarray]
) -> SplitReport:
    report = SplitReport(split, pictures=len(ids), classes={name: {"pixels": 0, "pictures": 0} for name in classes})
    for image_id in ids:
        add_result(report, image_id, ScanResult([], counts[image_id].tolist(), None))
    add_summary(report, ids)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: convert(args))


if __name__ == "__main__":
    sys.exit(main())
