"""Score a checkpoint under a named protocol: by default every image whole, at its own size, in one forward pass.

python evaluate.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar --out scores
python evaluate.py --weights-from xception65_coco_voc_trainaug --dataset pascal --scales 0.75 1.0 1.25 --flip
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from config.inference_flags import (
    add_inference_flags,
    add_source_flags,
    check_inference_flags,
    network_flags,
    window_flags,
)
from config.train_flags import add_device_flags
from dataloaders import DATASETS
from utils.errors import UserError
from utils.flags import DefaultsFormatter, Parser, answer_early, parse, positive, positive_int, run_command

PROTOCOLS = ("whole", "center-crop", "slide")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="evaluate.py", description="Score a checkpoint.", formatter_class=DefaultsFormatter)
    add_source_flags(parser)
    add = parser.add_argument_group("data").add_argument
    add("--dataset", choices=DATASETS, help="which data (default: what it was trained on)")
    add("--data-root", metavar="DIR", help="its folder; overrides DEEPLAB_<DATASET>_ROOT and mypath.py")
    add("--context-background", action=argparse.BooleanOptionalAction, default=None, help="context: the background is "
        "a class (default: as trained)")  # fmt: skip
    add("--split", default="val", help="train, val, ...; test may be without labels")
    add_inference_flags(parser, protocols=PROTOCOLS, protocol_help="whole images in one pass; short side to "
        "--crop-size and its center crop, label alike, as jfzhang95 scores; or windows of --crop-size")  # fmt: skip
    add = parser.add_argument_group("further scores").add_argument
    add("--trimap", type=positive_int, nargs="+", metavar="PIXELS", help="mIoU in bands of these widths around the "
        "void border (VOC), else around class borders")  # fmt: skip
    add("--boundary", type=positive, nargs="?", const=0.02, metavar="RATIO", help="boundary IoU within this fraction "
        "of the diagonal (without a value: 0.02)")  # fmt: skip
    add = parser.add_argument_group("results").add_argument
    add("--out", metavar="DIR", help="write scores as JSON, CSV and images there")
    add("--save-predictions", metavar="DIR", help="write label PNGs in the format of the benchmark's server")
    add_device_flags(parser.add_argument_group("device"))
    return parser


def check_flags(args: argparse.Namespace, _given: set[str]) -> None:
    """Raise UserError for flags that do not go together."""
    check_inference_flags(args, PROTOCOLS)
    if args.save_predictions and args.protocol == "center-crop":
        raise UserError("--save-predictions needs whole images: give --protocol whole or slide")


if __name__ == "__main__":
    answer_early(make_parser(), check_flags)  # above the imports below, which take seconds

from dataloaders import SegmentationDataset, build_dataset, eval_loader, start_workers
from dataloaders.transforms import CenterCrop, whole_image
from modeling.pretrained.loaded_model import LoadedModel, load_model
from utils.distributed import connect, is_main_process, print_main, process_group, rank, world_size
from utils.distributed.device import select_device
from utils.run.environment import command_line, describe_environment, describe_machine
from utils.run.report.content import Report
from utils.run.stale import require_no_run
from utils.scoring.boundaries import BoundaryIoU, Trimap
from utils.scoring.gallery import NUM_EXAMPLES, Gallery, evenly_spaced
from utils.scoring.loop import score
from utils.scoring.metrics import ConfusionMatrix
from utils.scoring.report import print_scores, write_results
from utils.scoring.submission import Submission


def main(argv: Sequence[str] | None = None) -> int:
    args, given = parse(make_parser(), argv)
    command = command_line("evaluate.py", sys.argv[1:] if argv is None else argv)
    return run_command(lambda: evaluate(args, given, command))


def evaluate(args: argparse.Namespace, given: set[str], command: str) -> int:
    check_flags(args, given)
    if args.out:
        require_no_run(Path(args.out))
    device = select_device(args.device)
    with process_group():
        loaded = load_model(
            args.checkpoint, weights_from=args.weights_from, network=network_flags(args, given),
            out_stride=args.out_stride, is_partial=args.partial_weights,
        )  # fmt: skip
        dataset = open_dataset(args, loaded)
        how = describe(args, loaded, dataset)
        predictor = loaded.predictor(
            device, amp=args.amp, scales=args.scales, flip=args.flip,
            window=how.get("crop_size") if args.protocol == "slide" else None, stride=how.get("stride"),
        )  # fmt: skip
        how["amp"] = predictor.amp
        if not dataset.has_labels and not (args.out or args.save_predictions):
            print_main(f"{no_labels(dataset, args.split)}; --save-predictions DIR would keep the predictions")
            return 0
        loader = eval_loader(
            dataset, workers=args.workers, pin_memory=device.type == "cuda", rank=rank(), world_size=world_size(),
            transform=CenterCrop(how["crop_size"][0]) if args.protocol == "center-crop" else whole_image,
        )  # fmt: skip
        start_workers(loader)
        connect(device)
        observers = make_observers(args, dataset)
        confusion = score(
            predictor, loader, num_classes=len(dataset.classes), device=device, observers=list(observers.values())
        )
        if is_main_process():
            report(args, how, loaded, dataset, confusion, observers, command=command)
    return 0


def open_dataset(args: argparse.Namespace, loaded: LoadedModel) -> SegmentationDataset:
    """The data to score on. Raises UserError where it does not fit the network."""
    trained_on = loaded.config.get("dataset")
    name, root = args.dataset or trained_on, args.data_root
    if name is None:
        raise UserError(f"{loaded.source} does not say what it was trained on: give --dataset")
    if root is None and name == trained_on:
        root = loaded.config.get("data_root")  # published weights have none
    background = args.context_background
    if background is None:
        background = loaded.config.get("context_background", False)
    dataset = build_dataset(name, args.split, root=root, context_background=background)
    if len(dataset.classes) != len(loaded.classes):
        raise UserError(
            f"{loaded.source} knows {len(loaded.classes)} classes, {name} has {len(dataset.classes)}: "
            "give the data it was trained for"
        )
    return dataset


def describe(args: argparse.Namespace, loaded: LoadedModel, dataset: SegmentationDataset) -> dict:
    """The protocol with everything that the scores depend on, for every output."""
    how = {"protocol": args.protocol, "out_stride": loaded.output_stride}
    how |= {"scales": args.scales, "flip": args.flip}
    how |= window_flags(args, loaded.config.get("crop_size"), PROTOCOLS)
    how |= {"dataset": dataset.name, "split": args.split, "pictures": len(dataset), "checkpoint": loaded.source}
    if args.protocol == "center-crop" and how["crop_size"][0] != how["crop_size"][1]:
        raise UserError(f"--crop-size {how['crop_size']}: the center crop is square, give N")
    return how


def make_observers(args: argparse.Namespace, dataset: SegmentationDataset) -> dict:
    num_classes = len(dataset.classes)
    observers = {"gallery": Gallery(num_classes, evenly_spaced(dataset.ids, NUM_EXAMPLES))}
    if args.save_predictions:
        observers["submission"] = Submission(Path(args.save_predictions), dataset.submission)
    if not dataset.has_labels:
        return observers
    if args.trimap:
        has_void = dataset.has_void_border
        has_void = dataset.labels_hold_void() if has_void is None else has_void
        observers["trimap"] = Trimap(args.trimap, num_classes, border="void" if has_void else "classes")
    if args.boundary:
        observers["boundary"] = BoundaryIoU(num_classes, ratio=args.boundary)
    return observers


def report(
    args: argparse.Namespace,
    how: dict,
    loaded: LoadedModel,
    dataset: SegmentationDataset,
    confusion: ConfusionMatrix,
    observers: dict,
    *,
    command: str,
) -> None:
    """Print the scores, and write the files of --out."""
    scores = None
    if dataset.has_labels:
        scores = confusion.scores(dataset.classes)
        scores |= {
            name: observers[name].scores(dataset.classes) for name in ("trimap", "boundary") if name in observers
        }
        print_scores(scores, how)
    else:
        written = filter(None, (args.save_predictions, args.out))
        print(f"{no_labels(dataset, args.split)}; see {' and '.join(written)}")
    if args.out:
        page = make_page(scores, how, loaded, dataset, confusion, observers["gallery"], command=command)
        write_results(Path(args.out), page, observers["gallery"], ids=dataset.ids)


def make_page(
    scores: dict | None,
    how: dict,
    loaded: LoadedModel,
    dataset: SegmentationDataset,
    confusion: ConfusionMatrix,
    gallery: Gallery,
    *,
    command: str,
) -> Report:
    """What report.html shows of a score."""
    spread = gallery.spread if scores else [example._replace(label=None) for example in gallery.spread]
    environment = describe_machine() | describe_environment()
    return Report(
        title=f"{dataset.name} {how['split']} · {loaded.config.get('backbone', '')}".rstrip(" ·"),
        subtitle=str(loaded.source), classes=dataset.classes, palette=dataset.palette, scores=scores, settings=how,
        counts=confusion.counts.cpu().numpy(), config=loaded.config, machine=environment, spread=spread,
        worst=gallery.worst, image_scores=gallery.rows, commands=[command],
    )  # fmt: skip


def no_labels(dataset: SegmentationDataset, split: str) -> str:
    return f"{dataset.name} {split} has no labels: nothing can be scored"


if __name__ == "__main__":
    sys.exit(main())
