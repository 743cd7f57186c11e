"""The first lines of a run: what follows from its flags."""

import argparse
from collections.abc import Mapping

import torch

from dataloaders import ResumableBatchSampler
from modeling import Architecture
from modeling.cost import cost
from utils.distributed import print_main


def describe(
    args: argparse.Namespace,
    architecture: Architecture,
    sampler: ResumableBatchSampler,
    *,
    sizes: Mapping[str, int],
    device: torch.device,
) -> None:
    """Print the cost of the network, the sizes of the data, the batch and the schedule."""
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
    steps, parts = sampler.steps_per_epoch, "one piece"
    if sampler.num_micro_batches > 1:
        parts = f"{sampler.world_size} processes x {sampler.accumulate} micro-batches"
    print_main(
        f"batch {args.batch_size} in {parts}, {steps} steps an epoch, {steps * args.epochs} in all; "
        f"lr {args.lr:g} backbone, {args.lr * args.head_lr_factor:g} head, {args.lr_scheduler}; "
        f"{device}, amp {args.amp}, {args.workers} workers"
    )
    for side in args.crop_size:
        if (side - 1) % args.out_stride:
            nearest = round((side - 1) / args.out_stride) * args.out_stride + 1
            print_main(
                f"note: crop side {side} is not k*{args.out_stride}+1, where features and pixels align; "
                f"the nearest is {nearest}"
            )
