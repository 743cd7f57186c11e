"""From flags to the parts of a run: data, network, loaders, optimizer, loss, schedule."""

import argparse
import functools
from collections.abc import Mapping, Sequence

import torch

from dataloaders import (
    PictureSet,
    RandomScaleCrop,
    StepSampler,
    TrainSamples,
    build_dataset,
    check_labels,
    train_loader,
    whole_loader,
)
from engine import Settings
from errors import UserError
from modeling import DeepLab, build_model
from modeling.cost import cost
from modeling.weights import EXPECTS, load_weights
from utils.class_weights import class_weights
from utils.device import select_device
from utils.distributed import rank, say, world_size
from utils.losses import build_loss
from utils.lr_schedule import rate_factor
from utils.optim import parameter_groups


def datasets(args: argparse.Namespace, state: dict | None) -> tuple[PictureSet, PictureSet | None]:
    roots = dict(root=args.data_root, use_sbd=args.use_sbd, sbd_root=args.sbd_root)
    train_set = build_dataset(args.dataset, "train", **roots)
    val_set = None if args.no_val else build_dataset(args.dataset, "val", **roots)
    if state is not None and not args.ft and list(train_set.classes) != state["classes"]:
        raise UserError(
            f"{args.resume} has {len(state['classes'])} classes ({', '.join(state['classes'][:3])}, ...), "
            f"the data {len(train_set.classes)} ({', '.join(train_set.classes[:3])}, ...): "
            "give the data it was trained on, or add --ft"
        )
    for pictures in filter(None, (train_set, val_set)):
        check_labels(pictures, workers=args.workers, skip_broken=args.skip_broken)
    return train_set, val_set


def network(args: argparse.Namespace, classes: Sequence[str], state: Mapping | None) -> DeepLab:
    """The network of the flags; `state`: the run it resumes, or with --ft the weights it starts from."""
    model = build_model(
        args.backbone, len(classes), output_stride=args.out_stride, head=args.head, multi_grid=args.multi_grid,
        dropout=args.dropout, width=args.width, wide_tap=args.wide_tap, partial_weights=args.partial_weights,
        backbone_weights="none" if state is not None else args.backbone_weights,
    )  # fmt: skip
    if state is not None and args.ft:
        start_from(model, state, args)
    elif state is not None:
        model.expect(**{name: state[name] for name in EXPECTS if name in state})
    model.set_batch_norm_momentum(args.bn_momentum)
    if args.freeze_bn:
        model.freeze_batch_norm()
    return convert_batch_norm(args, model)


def start_from(model: DeepLab, content: Mapping, args: argparse.Namespace) -> None:
    """Take all weights; only the classifier may stay as it was, where the classes are others."""
    source = args.weights_from or args.resume
    report = load_weights(model, args.weights_from or args.resume, content=content)
    left = report.missing + report.mismatched
    say(f"weights of {source}: {report}; left as they were: {', '.join(left[:3]) or 'none'}")
    if not args.partial_weights and (lost := [name for name in report.faults() if "classifier" not in name]):
        raise UserError(
            f"{source} does not fit --backbone {args.backbone} --head {args.head} ({lost[0]}; {report}): give the "
            "flags it was trained with, or --partial-weights to take what fits"
        )


def convert_batch_norm(args: argparse.Namespace, model: DeepLab) -> DeepLab:
    """Native SyncBatchNorm where several GPUs train; local batch norm elsewhere."""
    is_cuda = select_device(args.device).type == "cuda"
    if args.sync_bn and not is_cuda:
        raise UserError("--sync-bn works on GPUs alone: leave it out here")
    if world_size() > 1 and not is_cuda:
        say("on the CPU each process normalises its own part of the batch: local batch norm")
    if world_size() > 1 and is_cuda and args.sync_bn is not False:
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def num_parts(args: argparse.Namespace) -> int:
    """Parts of a process's batch. Where they do not change what is computed, one process takes those of two."""
    is_free = args.freeze_bn and select_device(args.device).type == "cpu" and args.batch_size % 2 == 0
    return 2 if is_free and world_size() == args.accumulate == 1 else args.accumulate


def loaders(
    args: argparse.Namespace, model: DeepLab, train_set: PictureSet, val_set: PictureSet | None, device: torch.device
) -> tuple:
    sampler = StepSampler(
        len(train_set), args.batch_size, seed=args.seed, rank=rank(), world=world_size(), accumulate=num_parts(args)
    )
    part = args.batch_size // (world_size() * num_parts(args))
    is_synced = any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in model.modules())
    if part == 1 and not args.freeze_bn and not is_synced:
        raise UserError(
            f"--batch-size {args.batch_size} leaves batch norm 1 picture a process and part: take at least "
            f"{2 * world_size() * num_parts(args)}, or --freeze-bn"
        )
    fill = tuple(round(255 * value) for value in model.mean)
    crop = RandomScaleCrop(tuple(args.crop_size), fill=fill, base_size=args.base_size)
    loading = dict(workers=args.workers, pin_memory=device.type == "cuda")
    samples = TrainSamples(train_set, crop, seed=args.seed, skip_broken=args.skip_broken)
    val = val_set and whole_loader(val_set, **loading, rank=rank(), world=world_size(), skip_broken=args.skip_broken)
    return train_loader(samples, sampler, **loading), val


def optimizer(args: argparse.Namespace, model: DeepLab) -> torch.optim.SGD:
    groups = parameter_groups(
        model, model.backbone, lr=args.lr, head_factor=args.head_lr_factor, weight_decay=args.weight_decay
    )
    return torch.optim.SGD(groups, lr=args.lr, momentum=args.momentum, nesterov=args.nesterov)


def criterion(args: argparse.Namespace, train_set: PictureSet) -> torch.nn.Module:
    weights = None
    if args.use_balanced_weights:
        weights = torch.tensor(class_weights(train_set, skip_broken=args.skip_broken))
    return build_loss(
        args.loss_type, class_weights=weights, focal_gamma=args.focal_gamma, ohem_fraction=args.ohem_fraction
    )


def schedule(args: argparse.Namespace, steps_per_epoch: int) -> functools.partial:
    return functools.partial(
        rate_factor, schedule=args.lr_scheduler, total_steps=args.epochs * steps_per_epoch,
        warmup_steps=args.warmup_steps, step_size=args.lr_step * steps_per_epoch,
    )  # fmt: skip


def settings(args: argparse.Namespace) -> Settings:
    return Settings(
        epochs=args.epochs, batch_size=args.batch_size, seed=args.seed, max_steps=args.max_steps,
        save_every=args.save_every, eval_interval=args.eval_interval, accumulate=num_parts(args), amp=args.amp,
        ema_decay=args.ema, channels_last=args.channels_last, compile=args.compile,
    )  # fmt: skip


def sizes(train_set: PictureSet, val_set: PictureSet | None) -> dict[str, int]:
    return {"train": len(train_set), "val": 0 if val_set is None else len(val_set)}


def describe(args: argparse.Namespace, model: DeepLab, loader, config: dict, device: torch.device) -> None:
    """Print what follows from the flags."""
    steps, (height, width) = loader.batch_sampler.steps_per_epoch, args.crop_size
    parameters, macs = cost(
        args.backbone, model.num_classes, output_stride=args.out_stride, head=args.head, width=args.width,
        wide_tap=args.wide_tap, size=(height, width),
    )  # fmt: skip
    count = num_parts(args)
    parts = f"{world_size()} processes x {count} parts" if world_size() * count > 1 else "one part"
    rate = f"{args.lr:g} backbone, {args.lr * args.head_lr_factor:g} head"
    say(
        f"{args.backbone}, {args.head} head, stride {args.out_stride}: {parameters:,} parameters, "
        f"{macs / 1e9:.2f} GMAC at {height}x{width}"
    )
    train_size, val_size = config["dataset_sizes"].values()
    say(f"{args.dataset}: {train_size} training and {val_size} validation pictures, {model.num_classes} classes")
    say(
        f"batch {args.batch_size} in {parts}, {steps} steps an epoch, {steps * args.epochs} in all; rate {rate}, "
        f"{args.lr_scheduler}; {device}, amp {args.amp}, {args.workers} workers"
    )
    for side in args.crop_size:
        if (side - 1) % args.out_stride:
            nearest = round((side - 1) / args.out_stride) * args.out_stride + 1
            say(
                f"note: crop side {side} is no k*{args.out_stride}+1, where features and pixels line up; "
                f"the nearest is {nearest}"
            )
