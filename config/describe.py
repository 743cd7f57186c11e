"""The first lines of a run: what follows from its flags."""

import argparse
from collections.abc import Iterator, Mapping

import torch

from config.recipes import NAMED
from dataloaders import ResumableBatchSampler
from modeling import Architecture
from modeling.cost import cost
from utils.distributed import print_main
from utils.distributed.device import describe_device
from utils.flags import flag


def describe(
    args: argparse.Namespace,
    architecture: Architecture,
    sampler: ResumableBatchSampler,
    *,
    sizes: Mapping[str, int],
    device: torch.device,
    amp: str,
) -> None:
    """Print the cost of the network, the sizes of the data, the batch, the schedule and the device."""
    height, width = args.crop_size
    parameters, macs = cost(architecture, size=(height, width))
    print_main(
        f"{args.backbone}, {args.head} head, stride {args.out_stride}: {parameters:,} parameters, "
        f"{macs / 1e9:.2f} GMAC at {height}x{width}"
    )
    print_main(
        f"{args.dataset}: {sizes['train']} training and {sizes['val']} validation images, "
        f"{architecture.num_classes} classes"
    )
    print_main(f"recipe {args.recipe}{''.join(recipe_flags(args))}")
    steps, parts = sampler.steps_per_epoch, "one piece"
    if sampler.num_micro_batches > 1:
        processes = f"{sampler.world_size} processes x " if sampler.world_size > 1 else ""
        parts = f"{processes}{sampler.accumulate} micro-batches of {sampler.micro_batch_size}"
    print_main(
        f"batch {args.batch_size} in {parts}, {steps} steps an epoch, {steps * args.epochs} in all; "
        f"lr {args.lr:g} backbone, {args.lr * args.head_lr_factor:g} head, {args.lr_scheduler}; "
        f"{describe_device(device, amp)}, {args.workers} workers"
    )
    for note in notes(args, sampler, device):
        print_main(f"note: {note}")


def recipe_flags(args: argparse.Namespace) -> Iterator[str]:
    """What the flags of the recipe resolved to."""
    named = NAMED[args.recipe]
    for name in [*named.flags, *(["epochs"] if named.epoch_share != 1 else [])]:
        yield f", {flag(name)} {getattr(args, name)}"


def notes(args: argparse.Namespace, sampler: ResumableBatchSampler, device: torch.device) -> Iterator[str]:
    """What a user may not expect of these flags."""
    for side in args.crop_size:
        if (side - 1) % args.out_stride:
            nearest = round((side - 1) / args.out_stride) * args.out_stride + 1
            yield (
                f"crop side {side} is not k*{args.out_stride}+1, where features and pixels align; "
                f"the nearest is {nearest}"
            )
    if device.type != "cuda" or sampler.world_size == 1:
        return
    if sampler.micro_batch_size <= 2:
        yield (
            f"each GPU computes {sampler.micro_batch_size} images at once and is not busy: a larger --batch-size, with "
            "--lr in proportion, makes use of all GPUs (docs/training.md)"
        )
    if args.compile and args.sync_bn is not False and not args.freeze_bn:
        yield (
            "--compile cannot compile synchronized batch norm, and splits the network at each: --no-sync-bn or "
            "--freeze-bn avoids it (docs/performance.md)"
        )
