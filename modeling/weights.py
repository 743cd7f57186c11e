"""Convert weights of any format in docs/weights.md to a checkpoint that describes its network.

python -m modeling.weights deeplabv3_pascal_train_aug/ --backbone xception --num-classes 21 --out xception_voc.pth
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from modeling.architecture import HEADS, Architecture
from modeling.backbone import BACKBONES
from utils.errors import UserError, writing
from utils.flags import Parser, answer_early, positive, positive_int, run_command

__all__ = ["WeightsReport", "load_weights", "main"]


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m modeling.weights", description="Convert weights to a checkpoint, and report which entries fit."
    )
    parser.add_argument("source", metavar="SOURCE", help="file, or TensorFlow prefix or folder")
    parser.add_argument("--backbone", choices=BACKBONES, required=True, help="of the network; also timm/NAME")
    parser.add_argument("--head", choices=HEADS, default="separable", help="ASPP and decoder (default: separable)")
    parser.add_argument("--num-classes", type=positive_int, metavar="K", help="default: as many as the source has")
    parser.add_argument("--multi-grid", action="store_true", help="atrous rates x 1, 2, 4 in ResNet's last layer")
    parser.add_argument("--width", type=positive, default=1.0, help="factor on MobileNet's channels (default: 1)")
    parser.add_argument("--wide-tap", action="store_true", help="MobileNet's decoder takes 144 low-level channels")
    parser.add_argument("--partial-weights", action="store_true", help="accept weights that do not fill the network")
    parser.add_argument("--out", metavar="FILE", required=True, help="where to write the checkpoint; "
        "x.safetensors: in that format")  # fmt: skip
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

from modeling.pretrained.load import WeightsReport, load_weights, number_of_classes, read_source
from utils.run.checkpoint import write_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: convert(args))


def convert(args: argparse.Namespace) -> int:
    content = read_source(args.source)
    num_classes = args.num_classes or number_of_classes(content)
    if num_classes is None:
        raise UserError(f"{args.source} is a backbone without a classifier: give --num-classes")
    architecture = Architecture.from_config(vars(args), num_classes=num_classes)
    model = architecture.build()
    report = load_weights(model, args.source, content=content)
    print_report(report)
    if not args.partial_weights:
        has_head = any(not name.startswith("backbone.") for name in report.loaded)
        what, prefix = ("network", "") if has_head else (f"{args.backbone} backbone", "backbone.")
        report.require(what, args.source, "give the flags it was trained with, or --partial-weights", prefix)
    state = {
        "state_dict": model.state_dict(),
        "config": architecture.to_config() | {"source": str(args.source)},
        "untrained": report.missing + report.mismatched,
    }
    with writing(args.out, "give another --out"):
        write_checkpoint(Path(args.out), state | model.preprocessing)
    print(args.out)
    return 0


def print_report(report: WeightsReport) -> None:
    """Print the counts, and a line for each entry that does not fit."""
    print(report)
    for name in ("missing", "unexpected", "mismatched"):
        print("".join(f"  {name} {entry}\n" for entry in getattr(report, name)), end="")


if __name__ == "__main__":
    sys.exit(main())
