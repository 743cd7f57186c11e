"""Score a checkpoint on a split: every picture whole, at its own size.

python evaluate.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar --dataset pascal
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import build
import options
from dataloaders import build_dataset, whole_loader
from errors import UserError
from utils.checkpoint import read_checkpoint
from utils.device import select_device
from utils.distributed import is_main_process, process_group, rank, world_size
from utils.metrics import table, write_metrics
from utils.scoring import score
from utils.visualize import sheet


def main(argv: Sequence[str] | None = None) -> int:
    args, given = options.parse(make_parser(), argv)
    return options.run_command(lambda: evaluate(args, given))


def make_parser() -> argparse.ArgumentParser:
    parser = options.Parser(
        prog="evaluate.py", description="Score a checkpoint.", formatter_class=options.DefaultsFormatter
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="of a training run")
    parser.add_argument("--dataset", choices=options.DATASETS, help="which data (default: what it was trained on)")
    parser.add_argument("--data-root", metavar="DIR", help="its folder, before DEEPLAB_<DATASET>_ROOT and mypath.py")
    parser.add_argument("--split", default="val", help="train, val, ...")
    parser.add_argument("--out-stride", type=int, choices=(8, 16, 32), help="(default: as trained)")
    parser.add_argument("--out", metavar="DIR", help="write metrics.json and sheet.png there")
    options.add_device_flags(parser)
    return parser


def evaluate(args: argparse.Namespace, given: set[str]) -> int:
    device = select_device(args.device)
    with process_group(device):
        state = read_checkpoint(args.checkpoint)
        model = build.load_trained(state, args.checkpoint, out_stride=args.out_stride).to(device)
        dataset, root = args.dataset or state["config"]["dataset"], args.data_root
        if root is None and dataset == state["config"]["dataset"]:
            root = state["config"]["data_root"]
        pictures = build_dataset(dataset, args.split, root=root)
        if len(pictures.classes) != len(state["classes"]):
            raise UserError(
                f"{args.checkpoint} knows {len(state['classes'])} classes, {dataset} has {len(pictures.classes)}: "
                "give the data it was trained for"
            )
        loader = whole_loader(
            pictures, workers=args.workers, pin_memory=device.type == "cuda", rank=rank(), world=world_size()
        )
        confusion, examples = score(model, loader, num_classes=len(pictures.classes), device=device, num_examples=4)
        if is_main_process():
            scores = confusion.scores(pictures.classes)
            how = {"protocol": "whole", "out_stride": model.output_stride, "dataset": dataset, "split": args.split}
            how |= {"pictures": len(pictures), "checkpoint": args.checkpoint}
            print(f"{table(scores)}\nprotocol whole, stride {model.output_stride}, {len(pictures)} pictures")
            if args.out:
                write_results(Path(args.out), scores, how, sheet(examples, pictures.classes, pictures.palette))
    return 0


def write_results(folder: Path, scores: dict, how: dict, picture: Image.Image) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_metrics(folder / "metrics.json", scores, **how)
        picture.save(folder / "sheet.png")
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}): give another --out") from error
    print(f"{folder / 'metrics.json'}\n{folder / 'sheet.png'}")


if __name__ == "__main__":
    sys.exit(main())
