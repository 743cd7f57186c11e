"""From the flags as given to flags that are all set and go together."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from config import recipes
from modeling import BACKBONES
from modeling.architecture import CONFIG_KEYS
from utils.distributed import print_main
from utils.errors import UserError
from utils.flags import flag, two_sides
from utils.loss_terms import loss_terms

NETWORK = tuple(key for key in CONFIG_KEYS if key != "dropout")
# Network and data: a resumed run takes these from its checkpoint, and a flag that contradicts them is an error
FIXED = (
    *CONFIG_KEYS,
    "dataset",
    "use_sbd",
    "context_background",
    "crop_size",
    "base_size",
    "batch_size",
    "seed",
    "optimizer",
    "class_uniform",
    "color_jitter",
    "aux_weight",
    "recipe",
)
# What the runs of checkpoints trained with that lack them, as they are older than these flags
OLDER = {"recipe": "paper", "optimizer": "sgd", "class_uniform": 0.0, "color_jitter": 0.0, "aux_weight": 0.0}
# flag -> flags of a recipe that do not suit another value of it
SUITED = {"optimizer": ("lr", "head_lr_factor", "weight_decay")}
# How this process runs, and how far: never taken from a checkpoint
NEVER_RESTORED = (
    "device", "workers", "run_dir", "checkname", "config", "resume", "ft", "weights_from", "max_steps", "no_val",
    "compile", "cache",
)  # fmt: skip


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """A copy in which every flag is set. Raises UserError for flags that do not go together."""
    args = argparse.Namespace(**vars(args))
    for name in recipes.NAMES:
        if getattr(args, name) is None:
            setattr(args, name, getattr(recipes.recipe(args.dataset), name))
    spec = BACKBONES[args.backbone]
    if args.out_stride is None:
        args.out_stride = spec.default_output_stride
    if args.weight_decay is None:
        args.weight_decay = spec.weight_decay
    if args.checkname is None:
        args.checkname = f"deeplab-{args.backbone.replace('/', '-')}"  # of timm/NAME
    for name in ("data_root", "sbd_root"):
        if folder := getattr(args, name):
            setattr(args, name, os.path.abspath(os.path.expanduser(folder)))
    if args.cache not in ("off", "ram"):
        args.cache = os.path.abspath(os.path.expanduser(args.cache))
    args.crop_size = two_sides(list(args.crop_size), "crop_size")
    check(args)
    return args


def with_recipe(args: argparse.Namespace, given: set[str]) -> argparse.Namespace:
    """A copy with the flags of `args.recipe`, except for the `given` ones and those that do not suit a given one."""
    named = recipes.NAMED[args.recipe]
    values = dict(named.flags)
    if named.epoch_share != 1:
        values["epochs"] = max(1, round(named.epoch_share * recipes.recipe(args.dataset).epochs))
    changed = {name for name in given & set(values) if getattr(args, name) != values[name]}
    unsuited = {other for name in changed for other in SUITED.get(name, ())}
    new = {name: value for name, value in values.items() if name not in given | unsuited}
    return argparse.Namespace(**vars(args) | new)


def check(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together."""
    if args.weights_from and args.resume not in (None, "auto"):
        raise UserError("--weights-from starts a new run: leave out --resume FILE, or give --resume auto")
    if args.ft and args.resume in (None, "auto"):
        raise UserError("--ft takes the weights of a checkpoint: name it with --resume FILE")
    if args.nesterov and not args.momentum:
        raise UserError("--nesterov needs --momentum above 0")
    if args.loss_type is not None:  # None: the default, which `with_defaults` sets
        loss_terms(args.loss_type)
    if args.optimizer == "adamw":
        if args.nesterov:
            raise UserError("--nesterov is defined for --optimizer sgd alone: leave it out")
        if args.decoupled_weight_decay:
            raise UserError("--decoupled-weight-decay is for --optimizer sgd, adamw has it always: leave it out")


def ema_decay(args: argparse.Namespace) -> float:
    """The decay of one update of the averaged weights: by --ema-half-life if it is given, else --ema."""
    return 0.5 ** (args.ema_every / args.ema_half_life) if args.ema_half_life else args.ema


def with_network(args: argparse.Namespace, given: set[str], config: Mapping) -> argparse.Namespace:
    """A copy for a new run from old weights: the network of `config`, except for the `given` flags."""
    known = {name: config[name] for name in NETWORK if name in config and name not in given}
    return argparse.Namespace(**vars(args) | known)


def with_checkpoint(args: argparse.Namespace, given: set[str], config: Mapping) -> argparse.Namespace:
    """A copy for a resumed run: the flags in the checkpoint's `config`, except for the `given` ones.

    Raises UserError for a given flag of FIXED that contradicts the checkpoint; prints the others.
    """
    args, config = argparse.Namespace(**vars(args)), OLDER | dict(config)
    for name in sorted(set(config) & set(vars(args)) - set(NEVER_RESTORED)):
        old, new = config[name], getattr(args, name)
        if name not in given or old == new or (name, new) == ("accumulate", "auto"):  # it was found at the start
            setattr(args, name, old)
        elif name in FIXED:
            raise UserError(
                f"{flag(name)} {new} contradicts the checkpoint's {old}: leave it out to resume, "
                "or add --ft to start a new run from its weights"
            )
        else:
            print_main(f"resumed with {flag(name)} {new} instead of {old}")
    return args


def runs_folder(args: argparse.Namespace) -> Path:
    """Where the runs of this dataset and checkname are."""
    return Path(args.run_dir) / args.dataset / args.checkname
