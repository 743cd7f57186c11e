"""Parameters and multiply-accumulates of a network, counted without allocating its memory.

python -m modeling.cost --backbone xception --head separable --size 513 513
"""

import argparse
import sys

import torch
from torch import Tensor, nn

from errors import UserError
from modeling import BACKBONES, HEADS, build_model
from utils.flags import Parser, positive, positive_int


def count_parameters(model: nn.Module) -> int:
    """Convolutions, batch-norm affine and the logits' bias; running statistics are no parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of the convolutions for one picture of `size` (height, width). `model` is on any device."""
    macs = 0

    def add(conv: nn.Conv2d, _inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal macs
        macs += output[0].numel() * conv.weight[0].numel()

    hooks = [conv.register_forward_hook(add) for conv in model.modules() if isinstance(conv, nn.Conv2d)]
    was_training = model.training
    device = next(model.parameters()).device
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, *size, device=device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return macs


def cost(
    backbone: str,
    num_classes: int,
    *,
    output_stride: int,
    head: str,
    size: tuple[int, int],
    width: float = 1.0,
    wide_tap: bool = False,
) -> tuple[int, int]:
    """(parameters, multiply-accumulates) of the named network, on the meta device."""
    with torch.device("meta"):
        model = build_model(
            backbone, num_classes, output_stride=output_stride, head=head, width=width, wide_tap=wide_tap
        )
        return count_parameters(model), count_macs(model, size)


def giga(macs: int) -> str:
    """In units of 1e9, with four digits where it is small."""
    return f"{macs / 1e9:.{2 if macs >= 1e10 else 3}f}"


def main(argv: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m modeling.cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", nargs="+", choices=BACKBONES, default=list(BACKBONES), help="default: all")
    parser.add_argument(
        "--head", nargs="+", choices=HEADS, default=["separable", "standard"], help="default: separable standard"
    )
    parser.add_argument("--out-stride", nargs="+", type=positive_int, default=[16], help="default: 16")
    parser.add_argument(
        "--size", nargs=2, type=positive_int, metavar=("H", "W"), default=[513, 513], help="default: 513 513"
    )
    parser.add_argument("--num-classes", type=positive_int, default=21, help="default: 21")
    parser.add_argument("--width", type=positive, default=1.0, help="MobileNet's channels, times this (default: 1)")
    parser.add_argument("--wide-tap", action="store_true", help="MobileNet's decoder takes 144 channels")
    args = parser.parse_args(argv)
    print(
        f"{'backbone':<11} {'head':<12} {'stride':>6} {'parameters':>12} {'GMAC':>8}   "
        f"({args.size[0]}x{args.size[1]}, {args.num_classes} classes)"
    )
    rows = [(b, h, s) for b in args.backbone for h in args.head for s in args.out_stride]
    try:
        for backbone, head, stride in rows:
            parameters, macs = cost(
                backbone, args.num_classes, output_stride=stride, head=head, size=tuple(args.size), width=args.width,
                wide_tap=args.wide_tap,
            )  # fmt: skip
            print(f"{backbone:<11} {head:<12} {stride:>6} {parameters:>12,} {giga(macs):>8}")
    except UserError as error:
        print(error.line(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
