"""Weights from elsewhere into a network, with a report of what went where.

python -m modeling.weights deeplabv3_pascal_train_aug/ --backbone xception --num-classes 21 --out xception_voc.pth

Reads our checkpoints, torchvision's ResNet and MobileNetV2, DRN, TensorFlow's DeepLab and its ImageNet backbones, and
the known implementation's ResNet and DRN: see docs/weights.md.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from errors import UserError
from modeling import BACKBONES, HEADS, build_model, default_output_stride, zoo
from modeling.deeplab import DeepLab
from modeling.names import translate
from modeling.tf_checkpoint import find_prefix, read_tf_checkpoint
from utils.checkpoint import is_mapping, read_checkpoint, write_checkpoint
from utils.distributed import say
from utils.flags import Parser, positive, positive_int

EXPECTS = ("mean", "std", "epsilon", "padding")
CLASSIFIER_NAMES = ("decoder.classifier.weight", "decoder.last_conv.8.weight", "logits/semantic/weights")
ARRAYS = Tensor | np.ndarray | np.generic
Source = str | Path | Mapping


@dataclass
class WeightsReport:
    """`format` of the source, and names: `loaded` into the network, `missing` from the source, `unexpected` in it,
    `mismatched` in shape.
    """

    format: str
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        names = ("loaded", "missing", "unexpected", "mismatched")
        return f"{self.format} weights: " + ", ".join(f"{len(getattr(self, name))} {name}" for name in names)

    def faults(self, prefix: str = "") -> list[str]:
        """What keeps the entries below `prefix` from being wholly those of the network."""
        return [name for name in self.missing + self.mismatched + self.unexpected if name.startswith(prefix)]

    def require(self, what: str, source: object, fix: str, prefix: str = "") -> None:
        """Raise UserError unless all entries below `prefix` (`what`) were filled and none was left over."""
        if faults := self.faults(prefix):
            examples = ", ".join(faults[:3]) + (", ..." if len(faults) > 3 else "")
            raise UserError(f"{source} does not fill the {what} ({self}; such as {examples}): {fix}")


def load_weights(
    model: nn.Module, source: Source, *, prefix: str = "", content: Mapping | None = None
) -> WeightsReport:
    """Copy into `model`, a DeepLab or a backbone alone, every entry of `source` whose name and shape it has,
    and let it expect what the weights do.

    `source`: a file, a TensorFlow checkpoint's prefix or folder, or a mapping of names to tensors or arrays (also a
    whole checkpoint of ours, whose averaged weights are taken where it has them). A backbone alone leaves the head.
    `prefix` ("backbone."): only entries that begin so. Epsilon, padding, mean and std are set in place.
    `content`: what `read_source` gave for `source`, where that is read already.
    Nothing is judged here: see the report. Raises UserError for a file that holds no weights.
    """
    if not isinstance(model, DeepLab):
        model = DeepLab(model, nn.Identity(), nn.Identity())
    weights, expects = read_weights(source, content)
    own = {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}
    entries = {name: value for name, value in weights.entries.items() if name.startswith(prefix)}
    shared = [name for name in own if name in entries]
    report = WeightsReport(
        format=weights.format,
        loaded=[name for name in shared if own[name].shape == entries[name].shape],
        missing=[name for name in own if name not in entries and not name.endswith("num_batches_tracked")],
        unexpected=[name for name in entries if name not in own],
        mismatched=[name for name in shared if own[name].shape != entries[name].shape],
    )
    model.load_state_dict({name: entries[name] for name in report.loaded}, strict=False)
    if prefix and "epsilon" in expects:
        part = prefix.removesuffix(".")
        expects = expects | {"epsilon": {part: expects["epsilon"][part]}}
    model.expect(**expects)
    return report


def read_weights(source: Source, content: Mapping | None = None) -> tuple:
    """(weights under our names, what they expect)."""
    if content is None:
        content = source if isinstance(source, Mapping) else read_source(source)
    try:
        weights = translate(state_of(content))
    except UserError as error:
        raise error if isinstance(source, Mapping) else UserError(f"{source}: {error}") from error
    return weights, weights.expects | {name: content[name] for name in EXPECTS if name in content}


def read_source(source: str | Path) -> Mapping:
    """The content of a PyTorch file, or the variables of a TensorFlow checkpoint."""
    path = Path(source).expanduser()
    if prefix := find_prefix(path):
        return read_tf_checkpoint(prefix)
    if path.is_dir():
        raise UserError(f"{path} is a folder without a TensorFlow checkpoint (*.index): name a file of weights")
    content = read_checkpoint(path)
    try:
        state_of(content)
    except UserError as error:
        raise UserError(f"{path} has {error}") from None
    return content


def state_of(content: Mapping) -> Mapping:
    """The names and tensors in a file's content: averaged ones before trained ones before the content itself.

    Raises UserError where there are none.
    """
    state = content.get("ema_state_dict", content.get("state_dict", content))
    if not is_mapping(state) or not state or not all(isinstance(value, ARRAYS) for value in state.values()):
        raise UserError("no weights in it: give names with tensors or arrays")
    return state


def number_of_classes(content: Mapping) -> int | None:
    """How many classes the weights tell apart; None for a backbone alone."""
    state = state_of(content)
    name = next((name for name in CLASSIFIER_NAMES if name in state), None)
    return None if name is None else state[name].shape[-1 if "/" in name else 0]


def load_backbone_weights(model: DeepLab, backbone: str, source: str, *, is_partial: bool = False) -> None:
    """Fill the backbone from `source`: imagenet, a name in the zoo, or a file of a backbone or a whole network.

    Raises UserError where it is not wholly filled, unless `is_partial`.
    """
    place = zoo.backbone_weights(source, backbone) or source
    report = load_weights(model, place, prefix="backbone.")
    say(f"backbone weights {source}: {report}")
    fix = "give weights of this very network, --partial-weights to take what fits, or --backbone-weights none"
    if not is_partial:
        report.require(f"{backbone} backbone", source, fix, "backbone.")


def main(argv: list[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    try:
        convert(args)
    except UserError as error:
        print(f"error: {error.line()}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m modeling.weights", description="Convert weights to a checkpoint, and report what went where."
    )
    parser.add_argument("source", metavar="SOURCE", help="file, TensorFlow prefix or folder")
    parser.add_argument("--backbone", choices=BACKBONES, required=True, help="what the weights are of")
    parser.add_argument("--head", choices=HEADS, default="separable", help="default: separable")
    parser.add_argument("--num-classes", type=positive_int, metavar="K", help="default: as many as the source has")
    parser.add_argument("--multi-grid", action="store_true", help="ResNet's last layer at rates x 1, 2, 4")
    parser.add_argument("--width", type=positive, default=1.0, help="MobileNet's channels, times this (default: 1)")
    parser.add_argument("--wide-tap", action="store_true", help="MobileNet's decoder takes 144 channels")
    parser.add_argument("--partial-weights", action="store_true", help="take what fits where not all does")
    parser.add_argument("--out", metavar="FILE", required=True, help="where to write the checkpoint")
    return parser


def convert(args: argparse.Namespace) -> None:
    """Write the source as a checkpoint that evaluate.py, predict.py and --ft take without further flags."""
    content = read_source(args.source)
    num_classes = args.num_classes or number_of_classes(content)
    if num_classes is None:
        raise UserError(
            f"{args.source} is a backbone alone: say how many classes the network is to have, --num-classes"
        )
    out_stride = default_output_stride(args.backbone)
    config = {"backbone": args.backbone, "head": args.head, "multi_grid": args.multi_grid, "out_stride": out_stride}
    config |= {"width": args.width, "wide_tap": args.wide_tap, "source": str(args.source)}
    model = build_model(
        args.backbone, num_classes, output_stride=out_stride, head=args.head, multi_grid=args.multi_grid,
        width=args.width, wide_tap=args.wide_tap,
    )  # fmt: skip
    report = load_weights(model, args.source, content=content)
    print(report)
    for name in ("missing", "unexpected", "mismatched"):
        print("".join(f"  {name} {entry}\n" for entry in getattr(report, name)), end="")
    if not args.partial_weights:
        has_head = any(not name.startswith("backbone.") for name in report.loaded)
        what, prefix = ("network", "") if has_head else (f"{args.backbone} backbone", "backbone.")
        report.require(what, args.source, "give the flags it was trained with, or --partial-weights", prefix)
    left = {"untrained": report.missing + report.mismatched}
    try:
        write_checkpoint(Path(args.out), {"state_dict": model.state_dict(), "config": config} | model.expects | left)
    except OSError as error:
        raise UserError(f"cannot write {args.out} ({error.strerror}): give another --out") from error
    print(args.out)


if __name__ == "__main__":
    sys.exit(main())
