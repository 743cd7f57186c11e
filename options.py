"""Flags that the command scripts share, the defaults of each data set, and what a resumed run keeps.

Long because every flag stands here with what it does.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dataloaders import DATASETS
from engine import AMP_TYPES
from errors import RunFailed, UserError
from modeling import BACKBONES, HEADS, default_output_stride
from utils.device import DEVICES
from utils.distributed import say
from utils.flags import (
    Parser,
    add_size_flag,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
    share_below_one,
    share_of_one,
    two_sides,
)
from utils.losses import LOSSES
from utils.lr_schedule import SCHEDULES

# Defaults that differ by data set. pascal, cityscapes, coco: the paper's recipe (arXiv 1802.02611 and 1706.05587), its
# 30,000 and 90,000 iterations in epochs of 10,582 and 2,975 pictures. folder and demo: found by trial, see README.
RECIPES = {
    "backbone": dict(pascal="resnet", cityscapes="resnet", coco="resnet", folder="resnet", demo="mobilenet"),
    "backbone_weights": dict(pascal="imagenet", cityscapes="imagenet", coco="imagenet", folder="imagenet", demo="none"),
    "crop_size": dict(pascal=[513], cityscapes=[769], coco=[513], folder=[513], demo=[97]),
    "batch_size": dict(pascal=16, cityscapes=8, coco=16, folder=8, demo=8),
    "epochs": dict(pascal=46, cityscapes=243, coco=30, folder=50, demo=12),
    "lr": dict(pascal=0.007, cityscapes=0.007, coco=0.007, folder=0.015, demo=0.05),
    "head_lr_factor": dict(pascal=1.0, cityscapes=1.0, coco=1.0, folder=10.0, demo=1.0),
}
NETWORK = ("backbone", "out_stride", "head", "multi_grid", "width", "wide_tap")
# Network and data: a resumed run takes these from its checkpoint, and a flag that says otherwise is an error
FIXED = (*NETWORK, "dropout", "dataset", "use_sbd", "crop_size", "base_size", "batch_size", "seed")
# Where and how far to run: never taken from a checkpoint
OF_THIS_CALL = (
    "device", "workers", "run_dir", "checkname", "resume", "ft", "weights_from", "max_steps", "no_val", "compile",
)  # fmt: skip

# Flags of the known implementation, and what to do instead
GONE = {
    "--gpu-ids": "choose GPUs by CUDA_VISIBLE_DEVICES=0,1 and start a process for each: torchrun --nproc-per-node 2",
    "--no-cuda": "give --device cpu",
    "--start_epoch": "--resume FILE goes on where the checkpoint is",
    "--test-batch-size": "validation takes one picture at a time, since sizes differ: leave it out",
}


class DefaultsFormatter(argparse.HelpFormatter):
    """Shows the default of a flag that has one and does not tell it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        is_silent = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        if is_silent or "(default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


class Gone(argparse.Action):
    """A flag of the known implementation that is no more: `const` says what replaces it."""

    def __call__(self, parser, _namespace, _values, option_string=None) -> NoReturn:
        parser.error(f"{option_string} is gone: {self.const}")


def train_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="train.py", description="Train DeepLabV3+.", formatter_class=DefaultsFormatter)
    add_network_flags(parser.add_argument_group("network"))
    add_data_flags(parser.add_argument_group("data"))
    add_training_flags(parser.add_argument_group("training"))
    add_speed_flags(parser.add_argument_group("where and how fast"))
    add_run_flags(parser.add_argument_group("runs"))
    for name, instead in GONE.items():
        parser.add_argument(name, action=Gone, nargs="*", const=instead, dest=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def add_network_flags(group) -> None:
    group.add_argument("--backbone", choices=BACKBONES, help=by_dataset("backbone", "what looks at the picture"))
    group.add_argument(
        "--out-stride",
        type=int,
        choices=(8, 16, 32),
        help="picture side over feature map side; 8 costs about 3 times 16 (default: 16; drn: 8)",
    )
    add_shape_flags(group, head="separable")
    group.add_argument("--dropout", type=share_below_one, default=0.1, help="after ASPP")
    group.add_argument(
        "--backbone-weights",
        metavar="{imagenet,none,NAME,FILE}",
        help=by_dataset("backbone_weights", "where training starts from; imagenet downloads once, docs/weights.md"),
    )
    group.add_argument(
        "--weights-from",
        metavar="NAME",
        help="start from a whole released network, which also says backbone and head: docs/weights.md",
    )
    group.add_argument(
        "--partial-weights",
        action="store_true",
        help="take what fits of --backbone-weights, or with --ft of the whole network, where not all does",
    )


def add_shape_flags(group, *, head: str | None = None) -> None:
    group.add_argument(
        "--head",
        choices=HEADS,
        default=head,
        help="ASPP and decoder with depthwise-separable or full convolutions; lite: 1x1 and no decoder; "
        "lite-decoder: 1x1 and the decoder (default: separable)",
    )
    group.add_argument("--multi-grid", action="store_true", help="rates x 1, 2, 4 in ResNet's last layer")
    group.add_argument("--width", type=positive, default=1.0, help="mobilenet: this many times the channels")
    group.add_argument(
        "--wide-tap",
        action="store_true",
        help="mobilenet: the decoder takes 144 low-level channels as the official code does, not 24",
    )


def add_data_flags(group, *, dataset_default: str | None = "pascal") -> None:
    group.add_argument("--dataset", choices=DATASETS, default=dataset_default, help="which data")
    group.add_argument("--data-root", metavar="DIR", help="its folder, before DEEPLAB_<DATASET>_ROOT and mypath.py")
    group.add_argument(
        "--use-sbd",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="pascal: also train on SBD, 10,582 pictures in all",
    )
    group.add_argument("--sbd-root", metavar="DIR", help="SBD's folder")
    group.add_argument(
        "--skip-broken",
        action="store_true",
        help="go on without pictures that cannot be decoded, and list them in the run folder (default: stop there)",
    )
    group.add_argument(
        "--base-size",
        type=positive_int,
        metavar="N",
        help="draw the training scale 0.5 to 2 around short side N (default: around the native size)",
    )
    add_size_flag(group, "--crop-size", by_dataset("crop_size", "training crop, N or H W"))


def add_training_flags(group) -> None:
    group.add_argument("--epochs", type=positive_int, help=by_dataset("epochs", "passes over the training pictures"))
    group.add_argument(
        "--batch-size",
        type=positive_int,
        help=by_dataset("batch_size", "pictures a step, over all processes and parts"),
    )
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="parts to compute a batch in: less memory, same gradient but for batch norm (default: 1; with --freeze-bn "
        "one process on the CPU takes at least 2, those of two processes)",
    )
    group.add_argument("--lr", type=positive, help=by_dataset("lr", "initial learning rate of the backbone"))
    group.add_argument(
        "--head-lr-factor",
        type=positive,
        metavar="F",
        help=by_dataset("head_lr_factor", "times --lr gives the rate of ASPP and decoder"),
    )
    group.add_argument("--lr-scheduler", choices=SCHEDULES, default="poly", help="how the rate falls, step by step")
    group.add_argument(
        "--lr-step",
        type=positive_int,
        default=30,
        metavar="EPOCHS",
        help="--lr-scheduler step: a tenth every so many epochs",
    )
    group.add_argument(
        "--warmup-steps", type=non_negative_int, default=0, metavar="N", help="rise linearly to the rate over N steps"
    )
    group.add_argument("--momentum", type=share_below_one, default=0.9, help="of SGD")
    group.add_argument("--nesterov", action="store_true", help="Nesterov momentum")
    group.add_argument(
        "--weight-decay",
        type=non_negative,
        help="on convolutions but depthwise ones (default: 4e-5 for xception and mobilenet, else 1e-4)",
    )
    group.add_argument(
        "--loss-type", choices=LOSSES, default="ce", help="cross-entropy, focal, or the hardest pixels of each picture"
    )
    group.add_argument("--focal-gamma", type=non_negative, default=2.0, help="--loss-type focal")
    group.add_argument("--ohem-fraction", type=share_of_one, default=0.25, help="--loss-type ohem: share that counts")
    group.add_argument(
        "--use-balanced-weights",
        action="store_true",
        help="weigh classes by how rare they are, counted once from the raw labels",
    )
    group.add_argument(
        "--freeze-bn",
        action="store_true",
        help="batch norm stays as the weights have it, statistics and affine: for small batches",
    )
    group.add_argument("--bn-momentum", type=share_of_one, default=0.1, help="the paper's 0.0003 is for 30,000 steps")
    group.add_argument(
        "--sync-bn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="batch norm over all GPUs (default: with more than one)",
    )
    group.add_argument(
        "--ema",
        type=share_below_one,
        default=0.0,
        metavar="DECAY",
        help="score and keep a running average of the weights, such as 0.999 (0: off)",
    )
    group.add_argument("--seed", type=non_negative_int, default=1, help="of weights, order, crops and dropout")


def add_speed_flags(group) -> None:
    add_device_flags(group)
    group.add_argument("--amp", choices=AMP_TYPES, default="off", help="mixed precision of the training steps")
    group.add_argument(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="NHWC memory, faster on GPUs with --amp and on CPUs",
    )
    group.add_argument("--compile", action="store_true", help="torch.compile the training network")
    group.add_argument("--deterministic", action="store_true", help="the same bits each time, slower on GPUs")


def add_device_flags(group) -> None:
    group.add_argument("--device", choices=DEVICES, default="auto", help="auto: CUDA, then MPS, then the CPU")
    group.add_argument(
        "--workers",
        type=non_negative_int,
        default=min(4, os.cpu_count() or 1),
        help="processes that load pictures (0: none, load in line)",
    )


def add_run_flags(group) -> None:
    group.add_argument(
        "--run-dir", default="run", metavar="DIR", help="a run is DIR/<dataset>/<checkname>/experiment_<n>/"
    )
    group.add_argument("--checkname", metavar="NAME", help="name of a series of runs (default: deeplab-<backbone>)")
    group.add_argument(
        "--resume",
        metavar="{auto,FILE}",
        help="go on from a checkpoint in its own folder; auto: the newest of this data set and "
        "checkname, or a fresh start",
    )
    group.add_argument("--ft", action="store_true", help="take only the weights of --resume FILE, for a new run")
    group.add_argument(
        "--max-steps", type=positive_int, metavar="N", help="stop after step N of the run; the schedule's length stays"
    )
    group.add_argument(
        "--save-every",
        type=positive_int,
        metavar="N",
        help="also write the checkpoint every N steps (default: each epoch)",
    )
    group.add_argument(
        "--eval-interval", type=positive_int, default=1, metavar="EPOCHS", help="epochs between two validations"
    )
    group.add_argument("--no-val", action="store_true", help="no validation")


def by_dataset(name: str, text: str) -> str:
    values = {key: "x".join(map(str, v)) if isinstance(v, list) else v for key, v in RECIPES[name].items()}
    if len(set(values.values())) == 1:
        return f"{text} (default: {values['pascal']})"
    return f"{text} (default: {', '.join(f'{key} {value}' for key, value in values.items())})"


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, set[str]]:
    """The flags, and the names of those that stand on the command line."""
    args = parser.parse_args(argv)
    unset = object()
    marked = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(args), unset)))
    return args, {name for name, value in vars(marked).items() if value is not unset}


def fill_defaults(args: argparse.Namespace) -> None:
    """Set what depends on data set or backbone and was not given. Raises UserError for values that do not fit."""
    for name, recipe in RECIPES.items():
        if getattr(args, name) is None:
            setattr(args, name, recipe[args.dataset])
    if args.out_stride is None:
        args.out_stride = default_output_stride(args.backbone)
    if args.weight_decay is None:
        args.weight_decay = 4e-5 if args.backbone.startswith(("xception", "mobilenet")) else 1e-4
    if args.checkname is None:
        args.checkname = f"deeplab-{args.backbone}"
    for name in ("data_root", "sbd_root"):
        if folder := getattr(args, name):
            setattr(args, name, os.path.abspath(os.path.expanduser(folder)))
    args.crop_size = two_sides(args.crop_size, "--crop-size")
    check(args)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together."""
    if args.weights_from and args.resume not in (None, "auto"):
        raise UserError("--weights-from starts a new run: leave out --resume FILE, or take --resume auto")
    if args.ft and args.resume in (None, "auto"):
        raise UserError("--ft takes the weights of a checkpoint: name it with --resume FILE")
    if args.nesterov and not args.momentum:
        raise UserError("--nesterov needs --momentum above 0")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def keep_from_checkpoint(args: argparse.Namespace, given: set[str], config: dict) -> None:
    """Set in `args` what a resumed run keeps. `given` flags win, but for FIXED ones, which must agree."""
    for name in sorted(set(config) & set(vars(args)) - set(OF_THIS_CALL)):
        old, new = config[name], getattr(args, name)
        if name not in given or old == new:
            setattr(args, name, old)
        elif name in FIXED:
            raise UserError(
                f"{flag(name)} {new} contradicts the checkpoint's {old}: leave it out to go on, "
                "or add --ft to start a new run from its weights"
            )
        else:
            say(f"resumed with {flag(name)} {new} instead of {old}")


def take_network(args: argparse.Namespace, given: set[str], config: dict) -> None:
    """For new runs from old weights: the network these are of, but for `given` flags."""
    for name in set(NETWORK) & set(config) - given:
        setattr(args, name, config[name])


def run_command(command: Callable[[], int]) -> int:
    """The exit status of a command script: 2 and one line for what the user can fix, 1 and one line for a run that
    cannot go on, 130 for Ctrl-C.
    """
    rank = os.environ.get("RANK", "0")
    prefix = "error: " if rank == "0" else f"rank {rank}: error: "
    try:
        return command()
    except UserError as error:
        sys.stderr.write(f"{prefix}{error.line()}\n")  # at once, or the lines of several processes run together
        return 2
    except RunFailed as error:
        sys.stderr.write(f"{prefix}{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
