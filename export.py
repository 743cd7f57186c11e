"""Export a checkpoint as ONNX or as a program of torch.export, checked against the checkpoint: docs/deploy.md.

python export.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar --out model.onnx
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from config.inference_flags import add_source_flags, network_flags
from dataloaders import build_dataset
from modeling.exported import FORMATS, OUTPUTS, check_name
from modeling.pretrained import zoo
from utils.errors import UserError
from utils.flags import DefaultsFormatter, Parser, answer_early, parse, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="export.py", description="Export a checkpoint.", formatter_class=DefaultsFormatter)
    add_source_flags(parser)
    add = parser.add_argument_group("export").add_argument
    add("--out", metavar="FILE", required=True, help="ends in .onnx, or in .pt2 for --format torch")
    add("--format", choices=FORMATS, default="onnx", help="torch: a program of torch.export")
    add("--output", choices=OUTPUTS, default="logits", help="float32 [B, K, H, W], or class numbers uint8 [B, H, W]")
    add("--size", type=positive_int, nargs=2, metavar=("H", "W"), help="of every image (default: any)")
    add("--half", action="store_true", help="compute in float16: half the file; faster on a GPU, not on a CPU")
    add("--images", nargs="+", metavar="FILE|DIR", help="compare file and checkpoint on these (default: four of demo)")
    return parser


def check_flags(args: argparse.Namespace, _given: set[str]) -> None:
    """Raise UserError for a flag that can be told wrong without the checkpoint."""
    if args.weights_from:
        zoo.released(args.weights_from)
    check_name(Path(args.out), args.format)


if __name__ == "__main__":
    answer_early(make_parser(), check_flags)  # above the imports below, which take seconds

import numpy as np
import torch
from torch import Tensor

from modeling.exported.write import export
from modeling.inputs import to_rgb_image
from modeling.pretrained.loaded_model import load_model
from utils.image_files import find_images


def main(argv: Sequence[str] | None = None) -> int:
    args, given = parse(make_parser(), argv)
    return run_command(lambda: run(args, given))


def run(args: argparse.Namespace, given: set[str]) -> int:
    loaded = load_model(
        args.checkpoint, weights_from=args.weights_from, network=network_flags(args, given),
        out_stride=args.out_stride, is_partial=args.partial_weights,
    )  # fmt: skip
    found = export(
        loaded, Path(args.out), check_images(args.images, args.size), format=args.format, output=args.output,
        size=tuple(args.size) if args.size else None, half=args.half,
    )  # fmt: skip
    print(f"{args.out}: {found}")
    return 0


def check_images(names: Sequence[str] | None, size: Sequence[int] | None) -> list[Tensor]:
    """The named images, else four of the demo data in three sizes, two as a batch; all of `size` if given."""
    if names:
        found = find_images(names)
        if found.missing:
            raise UserError(found.missing[0])
        images = [to_rgb_image(path) for path in found.files]
    else:
        demo = build_dataset("demo", "val")
        images = [demo.read(index)[0] for index in range(4)]
        images[1] = images[1].crop((0, 0, 131, 97))
    if size:
        images = [image.resize((size[1], size[0])) for image in images]
    tensors = [torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] for image in images]
    return tensors if names else [*tensors[:2], torch.cat(tensors[2:])]


if __name__ == "__main__":
    sys.exit(main())
