"""Count a network's parameters and multiply-accumulates, without allocating its memory.

python -m modeling.cost --backbone xception --head separable --size 513 513
"""

import argparse
import itertools
import sys
from collections.abc import Sequence

from modeling.architecture import HEADS, Architecture
from modeling.backbone import BACKBONES
from utils.flags import Parser, answer_early, positive, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m modeling.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="also timm/NAME (default: all)"
    )
    parser.add_argument(
        "--head", nargs="+", choices=HEADS, default=["separable", "standard"], help="default: separable standard"
    )
    parser.add_argument("--out-stride", nargs="+", type=positive_int, default=[16], help="default: 16")
    parser.add_argument(
        "--size", nargs=2, type=positive_int, metavar=("H", "W"), default=[513, 513], help="default: 513 513"
    )
    parser.add_argument("--num-classes", type=positive_int, default=21, help="default: 21")
    parser.add_argument("--width", type=positive, default=1.0, help="factor on MobileNet's channels (default: 1)")
    parser.add_argument("--wide-tap", action="store_true", help="MobileNet's decoder takes 144 low-level channels")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """The number of parameters: convolutions, batch norm and the classifier's bias, without running statistics."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the convolutions for one image of `size` (height, width), on the device of `model`."""
    image = torch.empty(1, 3, *size, device=next(model.parameters()).device)
    was_training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(image)
    model.train(was_training)
    return counter.get_total_flops() // 2  # a multiply-accumulate is two operations


def cost(architecture: Architecture, *, size: tuple[int, int]) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of the network for one image of `size` (height, width)."""
    with torch.device("meta"):
        model = architecture.build()
        return count_parameters(model), count_macs(model, size)


def giga(macs: int) -> str:
    """In units of 1e9, with two decimals, or three below 10."""
    return f"{macs / 1e9:.{2 if macs >= 1e10 else 3}f}"


def print_table(args: argparse.Namespace) -> int:
    width = max(11, *map(len, args.backbone))
    print(
        f"{'backbone':<{width}} {'head':<12} {'stride':>6} {'parameters':>12} {'GMAC':>8}   "
        f"({args.size[0]}x{args.size[1]}, {args.num_classes} classes)"
    )
    for backbone, head, stride in itertools.product(args.backbone, args.head, args.out_stride):
        architecture = Architecture(
            backbone=backbone, num_classes=args.num_classes, output_stride=stride, head=head, width=args.width,
            wide_tap=args.wide_tap,
        )  # fmt: skip
        parameters, macs = cost(architecture, size=tuple(args.size))
        print(f"{backbone:<{width}} {head:<12} {stride:>6} {parameters:>12,} {giga(macs):>8}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: print_table(args))


if __name__ == "__main__":
    sys.exit(main())
