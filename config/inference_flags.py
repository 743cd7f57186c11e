"""The flags that evaluate.py and predict.py share: which network, and how it is applied to an image."""

import argparse
from collections.abc import Sequence

from config.resolve import NETWORK
from config.train_flags import add_shape_flags
from modeling import BACKBONES
from modeling.pretrained import zoo
from utils.errors import UserError
from utils.flags import add_size_flag, positive, positive_int, two_sides


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Which trained network: a checkpoint that describes itself, or other weights and a description."""
    add = parser.add_argument_group("network").add_mutually_exclusive_group(required=True).add_argument
    add("--checkpoint", metavar="FILE", help="of a training run, or any weights that docs/weights.md names")
    add("--weights-from", metavar="NAME", help="a released network: docs/weights.md")
    group = parser.add_argument_group("description of weights that hold no settings")
    group.add_argument("--backbone", choices=BACKBONES, help="required for them; also timm/NAME")
    add_shape_flags(group)
    group.add_argument("--num-classes", type=positive_int, metavar="K", help="(default: as many as the weights have)")
    group.add_argument("--partial-weights", action="store_true", help="accept weights that do not fill the network")
    parser.add_argument("--out-stride", type=int, choices=(8, 16, 32), help="(default: as trained)")


ONE_PASS = ("auto", "whole")  # protocols without --crop-size


def add_inference_flags(parser: argparse.ArgumentParser, *, protocols: Sequence[str], protocol_help: str) -> None:
    """The first of `protocols` is the default."""
    group, users = parser.add_argument_group("inference"), " and ".join(with_crop(protocols))
    group.add_argument("--protocol", choices=protocols, default=protocols[0], help=protocol_help)
    group.add_argument("--scales", type=positive, nargs="+", default=[1.0], metavar="S", help="average the softmax "
        "over these scales (default: 1.0; the paper: 0.5 0.75 1.0 1.25 1.5 1.75)")  # fmt: skip
    group.add_argument("--flip", action="store_true", help="average with the horizontally flipped image too")
    add_size_flag(group, "--crop-size", f"of {users}, N or H W (default: as trained, else 513)")
    add_size_flag(group, "--stride", "from one window to the next, N or H W (default: two thirds of the window)")


def check_inference_flags(args: argparse.Namespace, protocols: Sequence[str]) -> None:
    """Raise UserError for an unknown --weights-from, and for `crop_size` or `stride` where the protocol ignores it."""
    if args.weights_from:
        zoo.released(args.weights_from)
    if args.protocol in ONE_PASS and (args.crop_size or args.stride):
        users = " or ".join(with_crop(protocols))
        raise UserError(f"--crop-size and --stride belong to --protocol {users}: add it, or leave them out")
    if args.protocol == "center-crop" and args.stride:
        raise UserError("--stride belongs to --protocol slide: leave it out")


def window_flags(args: argparse.Namespace, trained_crop: Sequence[int] | None, protocols: Sequence[str]) -> dict:
    """`crop_size` and `stride` where the protocol has them, after `check_inference_flags`."""
    if args.protocol in ONE_PASS:
        return {}
    from utils.inference import default_stride, require_no_gaps  # imports torch, which flags do not need

    crop = two_sides(args.crop_size or list(trained_crop or [513]), "crop_size")
    if args.protocol == "center-crop":
        return {"crop_size": crop}
    stride = two_sides(args.stride, "stride") if args.stride else list(default_stride(crop))
    require_no_gaps(stride, crop)
    return {"crop_size": crop, "stride": stride}


def with_crop(protocols: Sequence[str]) -> list[str]:
    """Those of `protocols` that have a --crop-size."""
    return [name for name in protocols if name not in ONE_PASS]


def network_flags(args: argparse.Namespace, given: set[str]) -> dict:
    """The flags of the command line that describe a network, for weights without a description."""
    names = [name for name in (*NETWORK, "num_classes") if name in given and name != "out_stride"]
    return {name: getattr(args, name) for name in names}
