"""The flags of train.py, in the groups of `--help`. Long, because every flag stands here with its effect."""

import argparse
import os
from typing import NoReturn

from config.recipes import default_help
from dataloaders import DATASETS
from engine import AMP_TYPES
from modeling import BACKBONES, HEADS
from utils.distributed.device import DEVICES
from utils.flags import (
    DefaultsFormatter,
    Parser,
    add_size_flag,
    fraction,
    fraction_below_one,
    non_negative,
    non_negative_int,
    positive,
    positive_int,
)
from utils.losses import LOSSES
from utils.lr_schedule import SCHEDULES

# Flags of jfzhang95's implementation that do not exist here, and what replaces them
REMOVED_FLAGS = {
    "--gpu-ids": "choose GPUs by CUDA_VISIBLE_DEVICES=0,1 and start a process for each: torchrun --nproc-per-node 2",
    "--no-cuda": "give --device cpu",
    "--start_epoch": "--resume FILE continues at the position of the checkpoint",
    "--test-batch-size": "validation takes one image at a time, since sizes differ: leave it out",
}


class RemovedFlag(argparse.Action):
    """An error that says what replaces the flag (`const`)."""

    def __call__(self, parser, _namespace, _values, option_string=None) -> NoReturn:
        parser.error(f"{option_string} does not exist here: {self.const}")


def train_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="train.py", description="Train DeepLabV3+.", formatter_class=DefaultsFormatter)
    add_network_flags(parser.add_argument_group("network"))
    add_data_flags(parser.add_argument_group("data"))
    add_training_flags(parser.add_argument_group("training"))
    add_speed_flags(parser.add_argument_group("device and speed"))
    add_run_flags(parser.add_argument_group("runs"))
    hidden = {"action": RemovedFlag, "nargs": "*", "dest": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for name, instead in REMOVED_FLAGS.items():
        parser.add_argument(name, const=instead, **hidden)
    return parser


def add_network_flags(group) -> None:
    group.add_argument("--backbone", choices=BACKBONES, help=f"feature extractor {default_help('backbone')}")
    group.add_argument(
        "--out-stride",
        type=int,
        choices=(8, 16, 32),
        help="side of the image over side of the feature map; 8 costs about 3 times 16 (default: 16; drn: 8)",
    )
    add_shape_flags(group, head="separable")
    group.add_argument("--dropout", type=fraction_below_one, default=0.1, help="after ASPP")
    group.add_argument(
        "--backbone-weights",
        metavar="{imagenet,none,NAME,FILE}",
        help="initial weights of the backbone; imagenet downloads them once, NAME: docs/weights.md "
        + default_help("backbone_weights"),
    )
    group.add_argument(
        "--weights-from",
        metavar="NAME",
        help="start from a whole released network, which also sets backbone and head: docs/weights.md",
    )
    group.add_argument(
        "--partial-weights",
        action="store_true",
        help="accept --backbone-weights, or with --ft the weights of a whole network, that do not fill all of it",
    )


def add_shape_flags(group, *, head: str | None = None) -> None:
    """The flags of `Architecture` that weights of another origin do not tell."""
    group.add_argument(
        "--head",
        choices=HEADS,
        default=head,
        help="ASPP and decoder with depthwise-separable or full convolutions; lite: 1x1 and no decoder; "
        "lite-decoder: 1x1 and the decoder (default: separable)",
    )
    group.add_argument("--multi-grid", action="store_true", help="atrous rates x 1, 2, 4 in ResNet's last layer")
    group.add_argument("--width", type=positive, default=1.0, help="mobilenet: this many times the channels")
    group.add_argument(
        "--wide-tap",
        action="store_true",
        help="mobilenet: the decoder takes the 144 low-level channels of the official code, not 24",
    )


def add_data_flags(group) -> None:
    group.add_argument("--dataset", choices=DATASETS, default="pascal", help="which data")
    group.add_argument("--data-root", metavar="DIR", help="its folder; overrides DEEPLAB_<DATASET>_ROOT and mypath.py")
    group.add_argument(
        "--use-sbd",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="pascal: also train on SBD, 10,582 images in all",
    )
    group.add_argument("--sbd-root", metavar="DIR", help="SBD's folder")
    group.add_argument(
        "--skip-broken",
        action="store_true",
        help="skip images that cannot be decoded, and list them in the run folder (default: stop at the first)",
    )
    group.add_argument(
        "--base-size",
        type=positive_int,
        metavar="N",
        help="draw the training scale 0.5 to 2 relative to short side N (default: relative to the native size)",
    )
    add_size_flag(group, "--crop-size", f"training crop, N or H W {default_help('crop_size')}")


def add_training_flags(group) -> None:
    add_schedule_flags(group)
    group.add_argument("--momentum", type=fraction_below_one, default=0.9, help="of SGD")
    group.add_argument("--nesterov", action="store_true", help="Nesterov momentum")
    group.add_argument(
        "--weight-decay",
        type=non_negative,
        help="of convolutions except depthwise ones (default: 4e-5 for xception and mobilenet, else 1e-4)",
    )
    add_loss_flags(group)
    group.add_argument(
        "--freeze-bn",
        action="store_true",
        help="keep statistics and affine of batch norm as the weights have them: for small batches",
    )
    group.add_argument("--bn-momentum", type=fraction, default=0.1, help="the paper's 0.0003 is for 30,000 steps")
    group.add_argument(
        "--sync-bn",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="batch norm over all GPUs (default: on with more than one)",
    )
    group.add_argument(
        "--ema",
        type=fraction_below_one,
        default=0.0,
        metavar="DECAY",
        help="keep and score an exponential moving average of the weights, such as 0.999 (0: off)",
    )
    group.add_argument("--seed", type=non_negative_int, default=1, help="of weights, order, crops and dropout")


def add_schedule_flags(group) -> None:
    group.add_argument("--epochs", type=positive_int, help=f"passes over the training images {default_help('epochs')}")
    group.add_argument(
        "--batch-size",
        type=positive_int,
        help=f"images of an optimizer step, over all processes and micro-batches {default_help('batch_size')}",
    )
    group.add_argument(
        "--accumulate",
        type=positive_int,
        default=1,
        metavar="N",
        help="micro-batches of a step in each process: less memory, same gradient except for batch norm (default: 1; "
        "with --freeze-bn one process on the CPU uses at least 2, as two processes would)",
    )
    group.add_argument("--lr", type=positive, help=f"initial learning rate of the backbone {default_help('lr')}")
    group.add_argument(
        "--head-lr-factor",
        type=positive,
        metavar="F",
        help=f"times --lr: the learning rate of ASPP and decoder {default_help('head_lr_factor')}",
    )
    group.add_argument("--lr-scheduler", choices=SCHEDULES, default="poly", help="decay of the learning rate by step")
    group.add_argument(
        "--lr-step",
        type=positive_int,
        default=30,
        metavar="EPOCHS",
        help="--lr-scheduler step: divide by 10 each time so many epochs have passed",
    )
    group.add_argument(
        "--warmup-steps", type=non_negative_int, default=0, metavar="N", help="rise linearly over the first N steps"
    )


def add_loss_flags(group) -> None:
    group.add_argument(
        "--loss-type", choices=LOSSES, default="ce", help="cross-entropy, focal, or the hardest pixels of each image"
    )
    group.add_argument("--focal-gamma", type=non_negative, default=2.0, help="--loss-type focal")
    group.add_argument("--ohem-fraction", type=fraction, default=0.25, help="--loss-type ohem: share of the pixels")
    group.add_argument(
        "--use-balanced-weights",
        action="store_true",
        help="weight classes by their rarity, counted once from the raw labels",
    )


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
        help="processes that load images (0: load in the main process)",
    )


def add_run_flags(group) -> None:
    group.add_argument(
        "--run-dir", default="run", metavar="DIR", help="a run is DIR/<dataset>/<checkname>/experiment_<n>/"
    )
    group.add_argument("--checkname", metavar="NAME", help="name of a series of runs (default: deeplab-<backbone>)")
    group.add_argument(
        "--resume",
        metavar="{auto,FILE}",
        help="continue from a checkpoint in its own folder; auto: the newest of this dataset and checkname, or a "
        "fresh start",
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
