"""The flags of train.py, in the groups of `--help`. Long, because every flag stands here with its effect."""

import argparse
import os
from typing import NoReturn

from config.recipes import NAMED, default_help
from dataloaders import DATASETS
from modeling import BACKBONES, HEADS
from utils.constants import DEVICES, LOSSES, OPTIMIZERS, PRECISIONS
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
    positive_int_or_auto,
)
from utils.lr_schedule import SCHEDULES

# Flags of jfzhang95's implementation that do not exist here, and what replaces them
REMOVED_FLAGS = {
    "--gpu-ids": "choose GPUs by CUDA_VISIBLE_DEVICES=0,1 and start a process for each: torchrun --nproc-per-node 2",
    "--no-cuda": "give --device cpu",
    "--start_epoch": "--resume FILE continues at the position of the checkpoint",
    "--test-batch-size": "validation takes one image at a time, since sizes differ: leave it out",
}
ON_OFF = argparse.BooleanOptionalAction


class RemovedFlag(argparse.Action):
    """An error that says what replaces the flag (`const`)."""

    def __call__(self, parser, _namespace, _values, option_string=None) -> NoReturn:
        parser.error(f"{option_string} does not exist here: {self.const}")


def train_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="train.py", description="Train DeepLabV3+.", formatter_class=DefaultsFormatter)
    add_network_flags(parser.add_argument_group("network"))
    add_data_flags(parser.add_argument_group("data"))
    add_training_flags(parser.add_argument_group("training"))
    add_optimizer_flags(parser.add_argument_group("optimizer"))
    add_speed_flags(parser.add_argument_group("device and speed"))
    add_run_flags(parser.add_argument_group("runs"))
    hidden = {"action": RemovedFlag, "nargs": "*", "dest": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    for name, instead in REMOVED_FLAGS.items():
        parser.add_argument(name, const=instead, **hidden)
    return parser


def add_network_flags(group) -> None:
    add = group.add_argument
    add("--backbone", choices=BACKBONES, help="feature extractor; timm/NAME: a network of timm (pip install timm) "
        f"{default_help('backbone')}")  # fmt: skip
    add("--out-stride", type=int, choices=(8, 16, 32), help="side of the image over side of the feature map; 8 costs "
        "about 3 times 16 (default: 16; drn: 8)")  # fmt: skip
    add_shape_flags(group, head="separable")
    add("--dropout", type=fraction_below_one, default=0.1, help="after ASPP")
    add("--backbone-weights", metavar="{imagenet,none,NAME,FILE}", help="initial weights of the backbone; imagenet "
        f"downloads them once, NAME: docs/weights.md {default_help('backbone_weights')}")  # fmt: skip
    add("--weights-from", metavar="NAME", help="start from a whole released network, which also sets backbone and "
        "head: docs/weights.md")  # fmt: skip
    add("--partial-weights", action="store_true", help="accept --backbone-weights, or with --ft the weights of a "
        "whole network, that do not fill all of it")  # fmt: skip


def add_shape_flags(group, *, head: str | None = None) -> None:
    """The flags of `Architecture` that weights of another origin do not tell."""
    add = group.add_argument
    add("--head", choices=HEADS, default=head, help="ASPP and decoder with depthwise-separable or full convolutions; "
        "lite: 1x1 and no decoder; lite-decoder: 1x1 and the decoder (default: separable)")  # fmt: skip
    add("--multi-grid", action="store_true", help="atrous rates x 1, 2, 4 in ResNet's last layer")
    add("--width", type=positive, default=1.0, help="mobilenet: this many times the channels")
    add("--wide-tap", action="store_true", help="mobilenet: the decoder takes the 144 low-level channels of the "
        "official code, not 24")  # fmt: skip


def add_data_flags(group) -> None:
    add = group.add_argument
    add("--dataset", choices=DATASETS, default="pascal", help="which data")
    add("--data-root", metavar="DIR", help="its folder; overrides DEEPLAB_<DATASET>_ROOT and mypath.py")
    add("--use-sbd", action=ON_OFF, default=False, help="pascal: also train on SBD, 10,582 images in all")
    add("--sbd-root", metavar="DIR", help="SBD's folder")
    add("--context-background", action=ON_OFF, default=False, help="context: the background is a class, 60 in all, "
        "not ignored")  # fmt: skip
    add("--skip-broken", action="store_true", help="skip images that cannot be decoded, and list them in the run "
        "folder (default: stop at the first)")  # fmt: skip
    add("--allow-absent", nargs="+", default=[], metavar="CLASS", help="numbers or names of classes that no "
        "training label needs to have; 0: own data without class 0 (refused, as numbers may start at 1)")  # fmt: skip
    add("--base-size", type=positive_int, metavar="N", help="draw the training scale 0.5 to 2 relative to short side N "
        "(default: relative to the native size)")  # fmt: skip
    add("--class-uniform", type=fraction, metavar="SHARE", help="this share of an epoch's samples are crops around "
        f"each class equally often, such as 0.5 (0: off) {default_help('class_uniform')}")  # fmt: skip
    add("--color-jitter", type=fraction, default=0.0, metavar="S", help="vary brightness, contrast and saturation by "
        "up to S, the hue by up to S/4 of the circle, such as 0.4 (0: off)")  # fmt: skip
    add_size_flag(group, "--crop-size", f"training crop, N or H W {default_help('crop_size')}")


def add_training_flags(group) -> None:
    add = group.add_argument
    add("--recipe", choices=NAMED, default="paper", help="paper: the defaults; strong: with options that are shown "
        "to help; fast: strong in half the epochs. Flags that are given win (docs/recipes.md)")  # fmt: skip
    add("--epochs", type=positive_int, help=f"passes over the training images {default_help('epochs')}")
    add("--batch-size", type=positive_int, help="images of an optimizer step, over all processes and micro-batches "
        f"{default_help('batch_size')}")  # fmt: skip
    add("--accumulate", type=positive_int_or_auto, default=1, metavar="{N,auto}", help="micro-batches of a step in "
        "each process: less memory, same gradient except for batch norm; auto: the fewest that fit in memory, which a "
        "resumed run keeps (default: 1; with --freeze-bn one process on the CPU uses at least 2, as two processes "
        "would)")  # fmt: skip
    add("--lr", type=positive, help=f"initial learning rate of the backbone {default_help('lr')}")
    add("--head-lr-factor", type=positive, metavar="F", help="times --lr: the learning rate of ASPP and decoder "
        f"{default_help('head_lr_factor')}")  # fmt: skip
    add("--lr-scheduler", choices=SCHEDULES, default="poly", help="decay of the learning rate by step")
    add("--lr-step", type=positive_int, default=30, metavar="EPOCHS", help="--lr-scheduler step: divide by 10 each "
        "time so many epochs have passed")  # fmt: skip
    add("--warmup-steps", type=non_negative_int, default=0, metavar="N", help="rise linearly over the first N steps")
    add("--loss-type", metavar="LOSS", help=f"{', '.join(LOSSES)} (docs/training.md), or a weighted sum such as "
        f"ce:0.375+dice:1.125 {default_help('loss_type')}")  # fmt: skip
    add("--focal-gamma", type=non_negative, default=2.0, help="--loss-type focal")
    add("--ohem-fraction", type=fraction, default=0.25, help="--loss-type ohem: share of the pixels")
    add("--aux-weight", type=non_negative, default=0.0, metavar="W", help="also train a small head on the backbone's "
        "features; its loss counts W times, such as 0.4; it is no part of the trained network (0: off)")  # fmt: skip
    add("--use-balanced-weights", action="store_true", help="weight classes by their rarity, counted once from the "
        "raw labels")  # fmt: skip
    add("--mixup", type=non_negative, default=0.0, metavar="ALPHA", help="mix each image with another one of its "
        "micro-batch, and their losses, by a share from Beta(ALPHA, ALPHA), such as 0.2 (0: off)")  # fmt: skip
    add("--freeze-bn", action="store_true", help="keep statistics and affine of batch norm as the weights have them: "
        "for small batches")  # fmt: skip
    add("--bn-momentum", type=fraction, default=0.1, help="the paper's 0.0003 is for 30,000 steps")
    add("--sync-bn", action=ON_OFF, default=None, help="batch norm over all GPUs (default: on with more than one)")
    add("--seed", type=non_negative_int, default=1, help="of weights, order, crops and dropout")


def add_optimizer_flags(group) -> None:
    add = group.add_argument
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="adamw needs a smaller --lr, such as 1e-4")
    add("--momentum", type=fraction_below_one, default=0.9, help="of SGD; the first beta of AdamW")
    add("--nesterov", action="store_true", help="Nesterov momentum")
    add("--weight-decay", type=non_negative, help="of convolutions except depthwise ones (default: 4e-5 for xception "
        "and mobilenet, else 1e-4)")  # fmt: skip
    add("--decoupled-weight-decay", action="store_true", help="multiply weights by 1 - decay x schedule, not "
        "adding the decay to the gradient: --weight-decay then acts apart from --lr, 2e-5 is usual")  # fmt: skip
    add("--clip-grad", type=non_negative, default=0.0, metavar="NORM", help="scale the gradient down to this L2 norm "
        "over all weights (0: off)")  # fmt: skip
    add("--sam", type=non_negative, default=0.0, metavar="RHO", help="sharpness-aware minimization: take the gradient "
        "where the loss is highest within RHO, such as 0.3; a step costs twice as much (0: off)")  # fmt: skip
    add("--sam-every", type=positive_int, default=1, metavar="N", help="--sam in every N-th step")
    add("--ema", type=fraction_below_one, default=0.0, metavar="DECAY", help="keep and score an exponential moving "
        "average of the weights, such as 0.999 (0: off)")  # fmt: skip
    add("--ema-half-life", type=positive, metavar="STEPS", help="--ema by the number of steps in which the share of a "
        "step's weights halves; wins over --ema")  # fmt: skip
    add("--ema-every", type=positive_int, default=1, metavar="N", help="update the average in every N-th step; the "
        "decay of --ema is that of one update")  # fmt: skip


def add_speed_flags(group) -> None:
    add = group.add_argument
    add_device_flags(group)
    add("--cache", default="off", metavar="{off,ram,DIR}", help="keep decoded images and labels, 4 bytes a pixel, in "
        "memory or in DIR, for later runs too: the same bits without decoding again (default: off)")  # fmt: skip
    add("--channels-last", action=ON_OFF, default=True, help="NHWC memory, faster on GPUs with --amp and on CPUs")
    add("--compile", action="store_true", help="torch.compile the training network")
    add("--deterministic", action="store_true", help="the same bits each time, slower on GPUs")


def add_device_flags(group) -> None:
    add, workers = group.add_argument, min(4, os.cpu_count() or 1)
    add("--device", choices=DEVICES, default="auto", help="auto: CUDA, then MPS, then the CPU")
    add("--amp", choices=("auto", *PRECISIONS), default="auto", help="mixed precision; auto: bf16 on a CUDA GPU that "
        "computes in it, else off")  # fmt: skip
    add("--workers", type=non_negative_int, default=workers, help="processes that load images (0: the main process)")


def add_run_flags(group) -> None:
    add = group.add_argument
    add("--config", metavar="FILE", help="take the flags of an earlier run from its config.json or folder, except "
        "where it is and where it computes; flags given beside it win")  # fmt: skip
    add("--run-dir", default="run", metavar="DIR", help="a run is DIR/<dataset>/<checkname>/experiment_<n>/")
    add("--checkname", metavar="NAME", help="name of a series of runs (default: deeplab-<backbone>)")
    add("--resume", metavar="{auto,FILE,DIR}", help="continue from a checkpoint, or that of the run in a folder, in "
        "its own folder; auto: the newest of this dataset and checkname, or a fresh start")  # fmt: skip
    add("--ft", action="store_true", help="take only the weights of --resume FILE, for a new run")
    add("--max-steps", type=positive_int, metavar="N", help="stop after step N of the run; the schedule's length stays")
    add("--save-every", type=positive_int, metavar="N", help="also write the checkpoint every N steps (default: each "
        "epoch)")  # fmt: skip
    add("--keep", type=non_negative_int, default=0, metavar="N", help="keep the last N checkpoints besides latest and "
        "best, as checkpoint_step_<step>.pth.tar; training waits if the disk is slower than they come")  # fmt: skip
    add("--eval-interval", type=positive_int, default=1, metavar="EPOCHS", help="epochs between two validations")
    add("--limit-val", type=positive_int, metavar="N", help="validate on N images, spread evenly over the split "
        "(default: all)")  # fmt: skip
    add("--no-val", action="store_true", help="no validation")
