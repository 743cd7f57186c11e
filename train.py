"""Train DeepLabV3+, score it on the validation split, keep the checkpoints.

python train.py --backbone resnet --dataset pascal
torchrun --nproc-per-node 8 train.py --backbone resnet --dataset pascal
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import options
from dataloaders import (
    PictureSet,
    RandomScaleCrop,
    StepSampler,
    TrainSamples,
    build_dataset,
    train_loader,
    whole_loader,
)
from engine import Settings, Trainer
from errors import UserError
from modeling import DeepLab, build_model
from modeling.cost import count_macs, count_parameters
from modeling.weights import load_weights
from utils.checkpoint import read_checkpoint
from utils.class_weights import class_weights
from utils.device import make_deterministic, select_device
from utils.distributed import is_main_process, process_group, rank, share, world_size
from utils.environment import describe_environment
from utils.losses import build_loss
from utils.lr_schedule import rate_factor
from utils.metrics import table
from utils.optim import parameter_groups
from utils.run_folder import RunFolder, newest_checkpoint
from utils.seeding import seed_everything

__all__ = ["Trainer", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    args, given = options.parse(options.train_parser(), argv)
    return options.run_command(lambda: train(args, given))


def train(args: argparse.Namespace, given: set[str]) -> int:
    device = select_device(args.device)
    with process_group(device):
        state = find_checkpoint(args, given)
        if args.deterministic:
            make_deterministic()
        seed_everything(args.seed)
        train_set, val_set = build_datasets(args, state)
        model = make_model(args, train_set.classes, state).to(device)
        loaders = build_loaders(args, model, train_set, val_set, device)
        optimizer = build_optimizer(args, model)
        criterion = make_criterion(args, train_set).to(device)
        factor = make_schedule(args, loaders[0].batch_sampler.steps_per_epoch)
        config = vars(args) | describe_environment() | {"dataset_sizes": sizes(train_set, val_set)}
        describe(args, model, loaders[0], config, device)
        trainer = Trainer(
            model, criterion, optimizer, factor, *loaders,
            settings=make_settings(args), run=open_run(args, state), classes=train_set.classes,
            palette=train_set.palette, device=device, extra={"config": config},
        )  # fmt: skip
        if state and not args.ft:
            trainer.resume(state)
        return finish(trainer, config)


def find_checkpoint(args: argparse.Namespace, given: set[str]) -> dict | None:
    """The checkpoint that --resume names or finds; `args` takes over what a resumed run keeps."""
    options.fill_defaults(args)
    if args.resume == "auto":
        args.resume = share(str(newest_checkpoint(runs_folder(args)) or "")) or None
        print(f"resuming {args.resume}" if args.resume else "nothing to resume: a fresh start")
    if args.resume is None:
        return None
    state = read_checkpoint(args.resume)
    if args.ft:
        return state
    if not {"state_dict", "optimizer", "epoch", "step", "config"} <= set(state):
        raise UserError(f"{args.resume} holds weights but no run to go on with: add --ft to start from the weights")
    options.keep_from_checkpoint(args, given, state["config"])
    return state


def build_datasets(args: argparse.Namespace, state: dict | None) -> tuple[PictureSet, PictureSet | None]:
    roots = dict(root=args.data_root, use_sbd=args.use_sbd, sbd_root=args.sbd_root)
    train_set = build_dataset(args.dataset, "train", **roots)
    val_set = None if args.no_val else build_dataset(args.dataset, "val", **roots)
    if state and not args.ft and list(train_set.classes) != state["classes"]:
        raise UserError(
            f"{args.resume} has {len(state['classes'])} classes ({', '.join(state['classes'][:3])}, ...), "
            f"the data {len(train_set.classes)} ({', '.join(train_set.classes[:3])}, ...): "
            "give the data it was trained on, or add --ft"
        )
    return train_set, val_set


def make_model(args: argparse.Namespace, classes: Sequence[str], state: dict | None) -> DeepLab:
    model = build_model(
        args.backbone, len(classes), output_stride=args.out_stride, head=args.head, multi_grid=args.multi_grid,
        dropout=args.dropout, backbone_weights="none" if state else args.backbone_weights,
    )  # fmt: skip
    if state:
        model.mean, model.std = state.get("mean", model.mean), state.get("std", model.std)
    if state and args.ft:
        report = load_weights(model, state.get("ema_state_dict", state.get("state_dict", state)))
        print(f"weights of {args.resume}: {report}; left as they were: {report.examples() or 'none'}")
        if lost := [name for name in report.missing + report.mismatched if "classifier" not in name]:
            raise UserError(f"{args.resume} does not fit --backbone {args.backbone} --head {args.head} ({lost[0]})")
    model.set_batch_norm_momentum(args.bn_momentum)
    if args.freeze_bn:
        model.freeze_batch_norm()
    return convert_batch_norm(args, model)


def convert_batch_norm(args: argparse.Namespace, model: DeepLab) -> DeepLab:
    """Native SyncBatchNorm where several GPUs train; local batch norm elsewhere."""
    is_cuda = select_device(args.device).type == "cuda"
    if args.sync_bn and not is_cuda:
        raise UserError("--sync-bn works on GPUs alone: leave it out here")
    if world_size() > 1 and not is_cuda:
        print("on the CPU each process normalises its own part of the batch: local batch norm")
    if world_size() > 1 and is_cuda and args.sync_bn is not False:
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def build_loaders(
    args: argparse.Namespace, model: DeepLab, train_set: PictureSet, val_set: PictureSet | None, device: torch.device
) -> tuple:
    sampler = StepSampler(
        len(train_set), args.batch_size, seed=args.seed, rank=rank(), world=world_size(), accumulate=args.accumulate
    )
    part = args.batch_size // (world_size() * args.accumulate)
    is_synced = any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in model.modules())
    if part == 1 and not args.freeze_bn and not is_synced:
        raise UserError(
            f"--batch-size {args.batch_size} leaves batch norm 1 picture a process and part: take at least "
            f"{2 * world_size() * args.accumulate}, or --freeze-bn"
        )
    fill = tuple(round(255 * value) for value in model.mean)
    crop = RandomScaleCrop(tuple(args.crop_size), fill=fill, base_size=args.base_size)
    loading = dict(workers=args.workers, pin_memory=device.type == "cuda")
    samples = TrainSamples(train_set, crop, seed=args.seed)
    val = val_set and whole_loader(val_set, **loading, rank=rank(), world=world_size())
    return train_loader(samples, sampler, **loading), val


def build_optimizer(args: argparse.Namespace, model: DeepLab) -> torch.optim.SGD:
    groups = parameter_groups(
        model, model.backbone, lr=args.lr, head_factor=args.head_lr_factor, weight_decay=args.weight_decay
    )
    return torch.optim.SGD(groups, lr=args.lr, momentum=args.momentum, nesterov=args.nesterov)


def make_criterion(args: argparse.Namespace, train_set: PictureSet) -> torch.nn.Module:
    weights = torch.tensor(class_weights(train_set)) if args.use_balanced_weights else None
    return build_loss(
        args.loss_type, class_weights=weights, focal_gamma=args.focal_gamma, ohem_fraction=args.ohem_fraction
    )


def make_schedule(args: argparse.Namespace, steps_per_epoch: int) -> functools.partial:
    return functools.partial(
        rate_factor, schedule=args.lr_scheduler, total_steps=args.epochs * steps_per_epoch,
        warmup_steps=args.warmup_steps, step_size=args.lr_step * steps_per_epoch,
    )  # fmt: skip


def make_settings(args: argparse.Namespace) -> Settings:
    return Settings(
        epochs=args.epochs, batch_size=args.batch_size, seed=args.seed, max_steps=args.max_steps,
        save_every=args.save_every, eval_interval=args.eval_interval, accumulate=args.accumulate, amp=args.amp,
        ema_decay=args.ema, channels_last=args.channels_last, compile=args.compile,
    )  # fmt: skip


def runs_folder(args: argparse.Namespace) -> Path:
    return Path(args.run_dir) / args.dataset / args.checkname


def open_run(args: argparse.Namespace, state: dict | None) -> RunFolder:
    """A new folder, or that of the checkpoint which is resumed."""
    if state and not args.ft and (Path(args.resume).parent / "config.json").is_file():
        return RunFolder(Path(args.resume).parent)
    return RunFolder(Path(share(str(RunFolder.create(runs_folder(args)).path) if is_main_process() else "")))


def sizes(train_set: PictureSet, val_set: PictureSet | None) -> dict[str, int]:
    return {"train": len(train_set), "val": 0 if val_set is None else len(val_set)}


def describe(args: argparse.Namespace, model: DeepLab, loader, config: dict, device: torch.device) -> None:
    """Print what follows from the flags."""
    if not is_main_process():
        return
    steps, (height, width) = loader.batch_sampler.steps_per_epoch, args.crop_size
    with torch.device("meta"):
        twin = build_model(args.backbone, model.num_classes, output_stride=args.out_stride, head=args.head)
    macs = count_macs(twin, (height, width)) / 1e9
    parts = f"{world_size()} processes x {args.accumulate} parts" if world_size() * args.accumulate > 1 else "one part"
    rate = f"{args.lr:g} backbone, {args.lr * args.head_lr_factor:g} head"
    print(
        f"{args.backbone}, {args.head} head, stride {args.out_stride}: {count_parameters(model):,} parameters, "
        f"{macs:.2f} GMAC at {height}x{width}"
    )
    train_size, val_size = config["dataset_sizes"].values()
    print(f"{args.dataset}: {train_size} training and {val_size} validation pictures, {model.num_classes} classes")
    print(
        f"batch {args.batch_size} in {parts}, {steps} steps an epoch, {steps * args.epochs} in all; rate {rate}, "
        f"{args.lr_scheduler}; {device}, amp {args.amp}, {args.workers} workers"
    )
    for side in args.crop_size:
        if (side - 1) % args.out_stride:
            nearest = round((side - 1) / args.out_stride) * args.out_stride + 1
            print(
                f"note: crop side {side} is no k*{args.out_stride}+1, where features and pixels line up; "
                f"the nearest is {nearest}"
            )


def finish(trainer: Trainer, config: dict) -> int:
    if trainer.is_finished and not trainer.is_epoch_complete():
        print(f"{trainer.run.path} is finished at step {trainer.step}: nothing to do")
        return 0
    if is_main_process():
        trainer.run.write_config(config)
        print(f"run folder {trainer.run.path}", flush=True)
    if stopped_by := trainer.fit():
        print(f"stopped by signal {stopped_by} after step {trainer.step}; go on with --resume {trainer.run.checkpoint}")
        return 128 + stopped_by
    if is_main_process() and trainer.scores:
        print(f"{table(trainer.scores)}\nprotocol whole, stride {trainer.model.output_stride}")
        print(f"best val mIoU {100 * trainer.best_pred:.2f}; {trainer.run.best}\nsheet {trainer.run.sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
