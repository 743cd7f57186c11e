"""Draw samples of a dataset as the network gets them, and the histogram of its classes.

    python -m dataloaders.show --dataset folder --data-root DIR --out data.png

Writes two images: data.png with the samples, training crops for the split train and else whole images, and
data_histogram.png with the share of the pixels and the number of images of each class, counted in the labels of the
whole split. In the samples, padding has wide gray stripes and ignored pixels (255) narrow black and white ones.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from config.recipes import default_help, recipe
from dataloaders import DATASETS
from utils.errors import UserError, writing
from utils.flags import (
    DefaultsFormatter,
    Parser,
    add_size_flag,
    answer_early,
    non_negative_int,
    parse,
    positive_int,
    run_command,
    two_sides,
)
from utils.run.files import write_atomically


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m dataloaders.show", formatter_class=DefaultsFormatter, description="Draw samples of a dataset "
        "(FILE.png) and the histogram of its classes (FILE_histogram.png).",
    )  # fmt: skip
    add = parser.add_argument
    add("--dataset", choices=DATASETS, required=True, help="which data")
    add("--data-root", metavar="DIR", help="its folder, as for train.py")
    add("--use-sbd", action="store_true", help="pascal: with SBD's images in train")
    add("--sbd-root", metavar="DIR", help="SBD's folder")
    add("--context-background", action="store_true", help="context: the background is a class")
    add("--split", default="train", help="train: crops as in training; others: whole images")
    add("--count", type=positive_int, default=9, metavar="N", help="samples to draw")
    add("--epoch", type=positive_int, default=1, metavar="N", help="draw the first samples of this epoch")
    add("--seed", type=non_negative_int, default=1, metavar="N", help="of the run: it decides on images and crops")
    add("--base-size", type=positive_int, metavar="N", help="as for train.py")
    add_size_flag(parser, "--crop-size", f"as for train.py {default_help('crop_size')}")
    add("--no-histogram", action="store_true", help="only draw samples: reads no other labels")
    add("--workers", type=non_negative_int, default=os.cpu_count() or 1, metavar="N", help="processes that read "
        "labels for the histogram (0: this one)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="FILE.png", help="image of the samples; the histogram is beside it")
    return parser


def check_flags(args: argparse.Namespace, given: set[str]) -> None:
    """Raise UserError for flags that have no effect or cannot hold."""
    if args.out.suffix.lower() != ".png":
        raise UserError(f"--out {args.out}: give a name that ends in .png")
    if args.split != "train" and (unused := sorted({"crop_size", "base_size"} & given)):
        raise UserError(
            f"`{unused[0]}`: --split {args.split} shows whole images, as validation reads them: leave it out"
        )


if __name__ == "__main__":
    answer_early(make_parser(), check_flags)  # above the imports below, which take seconds

from dataloaders import RandomScaleCrop, SegmentationDataset, TrainDataset, build_dataset
from dataloaders.checks.counts import class_counts
from dataloaders.sampler import epoch_order
from dataloaders.samples import training_samples, whole_samples
from utils.scoring.samples import Sample, sample_sheet
from utils.scoring.visualize import png

FILL = (128, 128, 128)  # of padding, which is drawn hatched


def main(argv: Sequence[str] | None = None) -> int:
    args, given = parse(make_parser(), argv)
    return run_command(lambda: show(args, given))


def show(args: argparse.Namespace, given: set[str]) -> int:
    check_flags(args, given)
    dataset = build_dataset(
        args.dataset, args.split, root=args.data_root, use_sbd=args.use_sbd, sbd_root=args.sbd_root,
        context_background=args.context_background,
    )  # fmt: skip
    what = f"{dataset.name} {args.split}, {len(dataset):,} images"
    samples, how = draw_samples(args, dataset)
    sheet = sample_sheet(samples, dataset.classes, dataset.palette, title=f"{what}: {how}")
    with writing(args.out, "give another --out"):
        write_atomically(args.out, png(sheet))
    print(args.out)
    if args.no_histogram:
        return 0
    if not dataset.has_labels:
        print(f"{dataset.name} {args.split} has no labels: no histogram")
        return 0
    write_histogram(args.out.with_name(f"{args.out.stem}_histogram.png"), dataset, what=what, workers=args.workers)
    return 0


def draw_samples(args: argparse.Namespace, dataset: SegmentationDataset) -> tuple[list[Sample], str]:
    """(samples, how they were made). Training crops have the random numbers of the run with this seed."""
    epoch, count = args.epoch - 1, min(args.count, len(dataset))
    indices = epoch_order(len(dataset), seed=args.seed, epoch=epoch)[:count]
    if args.split != "train":
        return whole_samples(dataset, indices=indices), f"{count} whole images"
    crop_size = tuple(two_sides(list(args.crop_size or recipe(args.dataset).crop_size), "crop_size"))
    crop = RandomScaleCrop(crop_size, fill=FILL, base_size=args.base_size)
    samples = training_samples(TrainDataset(dataset, crop, seed=args.seed), epoch=epoch, indices=indices)
    return samples, f"the first {count} crops of epoch {args.epoch}, {crop_size[1]}x{crop_size[0]}, seed {args.seed}"


def write_histogram(path: Path, dataset: SegmentationDataset, *, what: str, workers: int) -> None:
    from utils.scoring.plots import plot_classes  # Matplotlib takes a second to load

    counts = class_counts(dataset, workers=workers)
    with writing(path, "give another --out"):
        plot_classes(
            path, counts.pixels, counts.images, ignored=counts.ignored, num_images=counts.num_images,
            classes=dataset.classes, palette=dataset.palette, title=f"{what}: classes of the labels, without crops",
        )  # fmt: skip
    print(path)


if __name__ == "__main__":
    sys.exit(main())
