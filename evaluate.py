"""Score a checkpoint under a named protocol: by default every picture whole, at its own size, in one forward pass.

python evaluate.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar --out scores
python evaluate.py --weights-from xception65_coco_voc_trainaug --dataset pascal --scales 0.75 1.0 1.25 --flip
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import options
import scoring_options
from dataloaders import PictureSet, build_dataset, whole_loader
from dataloaders.transforms import CentreCrop, whole_picture
from errors import UserError
from trained import Trained, load_trained
from utils.boundaries import BoundaryIoU, Trimap
from utils.device import select_device
from utils.distributed import is_main_process, process_group, rank, say, world_size
from utils.flags import positive, positive_int
from utils.inference import Predictor
from utils.metrics import ConfusionMatrix, percent, table, write_confusion, write_metrics
from utils.per_image import PerImage
from utils.plots import plot_confusion, plot_trimap
from utils.scoring import score
from utils.submission import Submission
from utils.visualize import sheet

PROTOCOLS = ("whole", "center-crop", "slide")


def main(argv: Sequence[str] | None = None) -> int:
    args, given = options.parse(make_parser(), argv)
    return options.run_command(lambda: evaluate(args, given))


def make_parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="evaluate.py", description="Score a checkpoint.", formatter_class=options.DefaultsFormatter
    )
    scoring_options.add_source_flags(
        parser, checkpoint_help="of a training run, or any weights that docs/weights.md names"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=options.DATASETS, help="which data (default: what it was trained on)")
    data.add_argument("--data-root", metavar="DIR", help="its folder, before DEEPLAB_<DATASET>_ROOT and mypath.py")
    data.add_argument("--split", default="val", help="train, val, ...; test may be without labels")
    scoring_options.add_inference_flags(
        parser,
        protocols=PROTOCOLS,
        protocol_help="whole pictures in one pass; short side to --crop-size and its centre crop, label alike, as the "
        "known implementation scores; or windows of --crop-size",
    )
    scores = parser.add_argument_group("further scores")
    scores.add_argument(
        "--trimap", type=positive_int, nargs="+", metavar="PIXELS",
        help="mIoU in bands of these widths around the void border (VOC), else around class borders",
    )  # fmt: skip
    scores.add_argument(
        "--boundary", type=positive, nargs="?", const=0.02, metavar="RATIO",
        help="boundary IoU within this share of the diagonal (alone: 0.02)",
    )  # fmt: skip
    results = parser.add_argument_group("results")
    results.add_argument("--out", metavar="DIR", help="write scores as JSON, CSV and pictures there")
    results.add_argument(
        "--save-predictions", metavar="DIR", help="write label PNGs as the benchmark's server wants them"
    )
    options.add_device_flags(parser.add_argument_group("where"))
    return parser


def evaluate(args: argparse.Namespace, given: set[str]) -> int:
    device = select_device(args.device)
    with process_group(device):
        trained = load_trained(
            args.checkpoint, weights_from=args.weights_from, network=scoring_options.network_flags(args, given),
            out_stride=args.out_stride, is_partial=args.partial_weights,
        )  # fmt: skip
        pictures = open_pictures(args, trained)
        how = describe(args, trained, pictures)
        if not pictures.has_labels and not (args.out or args.save_predictions):
            say(f"{nothing_scored(pictures, args.split)}; --save-predictions DIR would keep the predictions")
            return 0
        predictor = Predictor(
            trained.model.to(device), device, scales=args.scales, flip=args.flip,
            window=how.get("crop_size") if args.protocol == "slide" else None, stride=how.get("stride"),
        )  # fmt: skip
        loader = whole_loader(
            pictures, workers=args.workers, pin_memory=device.type == "cuda", rank=rank(), world=world_size(),
            transform=CentreCrop(how["crop_size"][0]) if args.protocol == "center-crop" else whole_picture,
        )  # fmt: skip
        observers = make_observers(args, pictures)
        confusion, examples = score(
            predictor, loader, num_classes=len(pictures.classes), device=device, num_examples=4,
            observers=list(observers.values()),
        )  # fmt: skip
        if is_main_process():
            report(args, how, pictures, confusion, examples, observers)
    return 0


def open_pictures(args: argparse.Namespace, trained: Trained) -> PictureSet:
    """The data to score on. Raises UserError where it does not fit the network."""
    trained_on = trained.config.get("dataset")
    dataset, root = args.dataset or trained_on, args.data_root
    if dataset is None:
        raise UserError(f"{trained.source} does not say what it was trained on: give --dataset")
    if root is None and dataset == trained_on:
        root = trained.config["data_root"]
    pictures = build_dataset(dataset, args.split, root=root)
    if len(pictures.classes) != len(trained.classes):
        raise UserError(
            f"{trained.source} knows {len(trained.classes)} classes, {dataset} has {len(pictures.classes)}: "
            "give the data it was trained for"
        )
    if args.save_predictions and args.protocol == "center-crop":
        raise UserError("--save-predictions needs whole pictures: take --protocol whole or slide")
    return pictures


def describe(args: argparse.Namespace, trained: Trained, pictures: PictureSet) -> dict:
    """How the scores come about: the protocol with all that it depends on, for every output."""
    how = {"protocol": args.protocol, "out_stride": trained.model.output_stride}
    how |= {"scales": args.scales, "flip": args.flip}
    how |= scoring_options.windows(args, trained.config.get("crop_size"), PROTOCOLS)
    how |= {"dataset": pictures.name, "split": args.split, "pictures": len(pictures), "checkpoint": trained.source}
    if args.protocol == "center-crop" and how["crop_size"][0] != how["crop_size"][1]:
        raise UserError(f"--crop-size {how['crop_size']}: the centre crop is square, give N")
    return how


def make_observers(args: argparse.Namespace, pictures: PictureSet) -> dict:
    num_classes = len(pictures.classes)
    observers = {}
    if args.save_predictions:
        observers["submission"] = Submission(Path(args.save_predictions), pictures.submission)
    if not pictures.has_labels:
        return observers
    observers["per_image"] = PerImage(num_classes)
    if args.trimap:
        has_void = pictures.has_void_border
        has_void = pictures.labels_hold_void() if has_void is None else has_void
        observers["trimap"] = Trimap(args.trimap, num_classes, border="void" if has_void else "classes")
    if args.boundary:
        observers["boundary"] = BoundaryIoU(num_classes, ratio=args.boundary)
    return observers


def report(
    args: argparse.Namespace,
    how: dict,
    pictures: PictureSet,
    confusion: ConfusionMatrix,
    examples: list,
    observers: dict,
) -> None:
    """Print the scores, and write the files of --out."""
    files = {}
    if pictures.has_labels:
        scores = confusion.scores(pictures.classes) | further_scores(observers, pictures.classes)
        print_scores(scores, how)
        files = result_files(scores, how, confusion.counts.cpu(), observers, pictures)
    else:
        kept = filter(None, (args.save_predictions, args.out))
        print(f"{nothing_scored(pictures, args.split)}; see {' and '.join(kept)}")
        examples = [example._replace(label=None) for example in examples]
    if args.out:
        write(files | {"sheet.png": sheet(examples, pictures.classes, pictures.palette).save}, Path(args.out))


def nothing_scored(pictures: PictureSet, split: str) -> str:
    return f"{pictures.name} {split} has no labels: nothing can be scored"


def further_scores(observers: dict, classes: Sequence[str]) -> dict:
    return {name: observers[name].scores(classes) for name in ("trimap", "boundary") if name in observers}


def print_scores(scores: dict, how: dict) -> None:
    print(table(scores))
    if trimap := scores.get("trimap"):
        print(f"trimap, {trimap['border']} borders:")
        print("".join(f"  {width:>4} px {percent(miou):>7}\n" for width, miou in trimap["miou"].items()), end="")
    if boundary := scores.get("boundary"):
        print(f"boundary IoU, {boundary['ratio']:g} of the diagonal: {percent(boundary['miou'])}")
    sizes = "".join(f", {name} {how[name][0]}x{how[name][1]}" for name in ("crop_size", "stride") if name in how)
    print(
        f"protocol {how['protocol']}{sizes.replace('_', ' ')}, stride {how['out_stride']}, "
        f"scales {' '.join(map(str, how['scales']))}{', flip' if how['flip'] else ''}, {how['pictures']} pictures"
    )


def result_files(scores: dict, how: dict, counts: torch.Tensor, observers: dict, pictures: PictureSet) -> dict:
    """Name -> what writes that file to a path."""
    classes = pictures.classes
    files = {
        "metrics.json": lambda path: write_metrics(path, scores, **how),
        "per_image.csv": lambda path: observers["per_image"].write(path, pictures.ids),
        "confusion.csv": lambda path: write_confusion(path, counts.numpy(), classes),
        "confusion.png": lambda path: plot_confusion(path, counts.numpy(), classes),
    }
    if "trimap" in scores:
        files["trimap.png"] = functools.partial(plot_trimap, **scores["trimap"], whole=scores["miou"])
    return files


def write(files: dict, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write_to in files.items():
            write_to(folder / name)
            print(folder / name)
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}): give another --out") from error


if __name__ == "__main__":
    sys.exit(main())
