"""Train DeepLabV3+, score it on the validation split, keep the checkpoints.

python train.py --backbone resnet --dataset pascal
torchrun --nproc-per-node 8 train.py --backbone resnet --dataset pascal
"""

import argparse
import sys
from collections.abc import Sequence

from config.early import check_flags
from config.train_flags import train_parser
from utils.flags import answer_early, parse, run_command

if __name__ == "__main__":
    answer_early(train_parser(), check_flags)  # above the imports below, which take seconds

import torch
from torch import nn
from torch.utils.data import DataLoader

from config.accumulate import find_accumulate
from config.defaults import changed_flags
from config.describe import describe
from config.resolve import ema_decay, runs_folder
from config.start import Start, find_start
from dataloaders import (
    SegmentationDataset,
    build_dataset,
    check_absent,
    check_labels,
    eval_loader,
    start_workers,
    train_loader,
)
from dataloaders.cache import open_cache
from dataloaders.sampler import ResumableBatchSampler, resolve_accumulate
from dataloaders.samples import first_batch
from engine import Settings, Trainer
from modeling import Architecture, DeepLab
from modeling.auxiliary import WithAuxiliary
from modeling.batch_norm import require_two_images, sync_batch_norm
from modeling.deeplab import LowResolutionLogits
from modeling.pretrained.load import load_backbone_weights, load_initial_weights, preprocessing_of
from utils.class_weights import class_weights
from utils.distributed import connect, is_main_process, print_main, process_group, rank, world_size
from utils.distributed.device import make_deterministic, resolve_amp, select_device
from utils.losses import AuxiliaryLoss, build_loss
from utils.lr_schedule import build_schedule
from utils.memory import keep_freed_memory
from utils.optim import build_optimizer
from utils.run.environment import command_line, describe_environment
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder
from utils.run.resume import require_same_classes, restore
from utils.run.signals import StopSignals, setup_signals
from utils.scoring.gallery import NUM_EXAMPLES, evenly_spaced
from utils.scoring.metrics import table
from utils.seeding import seed_everything

__all__ = ["Trainer", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    flags, given = parse(train_parser(), argv)
    return run_command(lambda: train(flags, given, command_line("train.py", sys.argv[1:] if argv is None else argv)))


def train(flags: argparse.Namespace, given: set[str], command: str) -> int:
    device = select_device(flags.device)
    if device.type == "cpu":
        keep_freed_memory()
    with setup_signals(), process_group():
        start = find_start(flags, given)
        args = start.args
        if args.deterministic:
            make_deterministic()
        seed_everything(args.seed)
        train_set, val_set = build_datasets(args, start)
        architecture = Architecture.from_config(vars(args), num_classes=len(train_set.classes))
        model = build_network(args, architecture, start)
        network = training_network(args, model, device)
        val_images = [] if val_set is None else evenly_spaced(range(len(val_set)), args.limit_val or len(val_set))
        train_batches, val_batches = build_loaders(args, model, train_set, val_set, device, val_images=val_images)
        start_workers(train_batches, val_batches)
        connect(device)
        sampler = train_batches.batch_sampler
        optimizer = make_optimizer(args, network, model.backbone)
        criterion = make_criterion(args, train_set).to(device)
        if args.accumulate == "auto":
            args.accumulate = find_accumulate(args, model, network, criterion, optimizer, sampler)
            sampler.divide(args.accumulate)
        schedule = build_schedule(
            args.lr_scheduler, epochs=args.epochs, steps_per_epoch=sampler.steps_per_epoch,
            warmup_steps=args.warmup_steps, step_epochs=args.lr_step,
        )  # fmt: skip
        examples = [val_set.ids[index] for index in evenly_spaced(val_images, NUM_EXAMPLES)]
        settings = make_settings(args, sampler, device, examples)
        sizes = {"train": len(train_set), "val": 0 if val_set is None else len(val_set)}
        config = vars(args) | describe_environment() | start.facts(command) | {"dataset_sizes": sizes}
        describe(args, architecture, sampler, sizes=sizes, device=device, amp=settings.amp)
        with RunFolder.open(runs_folder(args), start.source if start.checkpoint else None) as folder:
            extra = {"config": config} | model.preprocessing
            recorder = Recorder(
                folder, classes=train_set.classes, palette=train_set.palette, extra=extra,
                changed=changed_flags(args), num_kept=args.keep,
            )  # fmt: skip
            trainer = Trainer(
                model, criterion, optimizer, schedule, train_batches, val_batches, settings=settings,
                classes=train_set.classes, recorder=recorder, signals=StopSignals(), device=device,
                network=network,
            )  # fmt: skip
            if start.checkpoint:
                restore(trainer, start.checkpoint, start.source, limit_val=args.limit_val)
                recorder.restore(start.checkpoint)
            # The checkpoint keeps the flags, as other processes and devices resolve them differently
            return run(trainer, config | {"accumulate": settings.accumulate, "amp": settings.amp})


def build_datasets(args: argparse.Namespace, start: Start) -> tuple[SegmentationDataset, SegmentationDataset | None]:
    """(training, validation) data, whose labels are checked before the run starts."""
    options = {"root": args.data_root, "use_sbd": args.use_sbd, "sbd_root": args.sbd_root}
    options |= {"context_background": args.context_background}
    train_set = build_dataset(args.dataset, "train", **options)
    val_set = None if args.no_val else build_dataset(args.dataset, "val", **options)
    if start.checkpoint:
        require_same_classes(start.checkpoint, train_set.classes, start.source)
    checking = {"workers": args.workers, "skip_broken": args.skip_broken}
    counts = check_labels(train_set, **checking)
    check_absent(train_set, counts, None if start.checkpoint else args.allow_absent)
    if val_set is not None:
        check_labels(val_set, **checking)
    return train_set, val_set


def build_network(args: argparse.Namespace, architecture: Architecture, start: Start) -> DeepLab:
    """The network with its initial weights; a resumed run loads its own later, with the momentum."""
    model = architecture.build()
    if start.checkpoint:
        model.configure(**preprocessing_of(start.checkpoint))
    elif start.weights:
        load_initial_weights(model, start.weights, start.source, is_partial=args.partial_weights)
    elif args.backbone_weights != "none":
        load_backbone_weights(model, args.backbone, args.backbone_weights, is_partial=args.partial_weights)
    model.set_batch_norm_momentum(args.bn_momentum)
    if args.freeze_bn:
        model.freeze_batch_norm()
    return model


def training_network(args: argparse.Namespace, model: DeepLab, device: torch.device) -> nn.Module:
    """What a training step calls, on `device`: `model` without the last upsampling, or also with the second head."""
    network = WithAuxiliary(model, dropout=args.dropout) if args.aux_weight else LowResolutionLogits(model)
    return sync_batch_norm(network, args.sync_bn, device, world_size()).to(device)


def build_loaders(
    args: argparse.Namespace,
    model: DeepLab,
    train_set: SegmentationDataset,
    val_set: SegmentationDataset | None,
    device: torch.device,
    *,
    val_images: Sequence[int],
) -> tuple[DataLoader, DataLoader | None]:
    datasets = open_cache(args.cache, [train_set] if val_set is None else [train_set, val_set])
    loading = {"workers": args.workers, "pin_memory": device.type == "cuda", "skip_broken": args.skip_broken}
    loading |= {"rank": rank(), "world_size": world_size()}
    accumulate = resolve_accumulate(
        args.accumulate, batch_size=args.batch_size, num_processes=world_size(),
        is_independent=args.freeze_bn and device.type == "cpu",
    )  # fmt: skip
    train_batches = train_loader(
        datasets[0], crop_size=tuple(args.crop_size), base_size=args.base_size, mean=model.mean, seed=args.seed,
        batch_size=args.batch_size, accumulate=accumulate, class_uniform=args.class_uniform,
        color_jitter=args.color_jitter, **loading,
    )  # fmt: skip
    require_two_images(model, args.batch_size, train_batches.batch_sampler.num_micro_batches)
    return train_batches, None if val_set is None else eval_loader(datasets[1], indices=val_images, **loading)


def make_optimizer(args: argparse.Namespace, network: nn.Module, backbone: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(
        network, backbone, kind=args.optimizer, lr=args.lr, head_lr_factor=args.head_lr_factor,
        weight_decay=args.weight_decay, is_decoupled=args.decoupled_weight_decay, momentum=args.momentum,
        nesterov=args.nesterov,
    )  # fmt: skip


def make_criterion(args: argparse.Namespace, train_set: SegmentationDataset) -> nn.Module:
    weights = class_weights(train_set, skip_broken=args.skip_broken) if args.use_balanced_weights else None
    loss = build_loss(
        args.loss_type, class_weights=weights, focal_gamma=args.focal_gamma, ohem_fraction=args.ohem_fraction
    )
    return AuxiliaryLoss(loss, args.aux_weight) if args.aux_weight else loss


def make_settings(
    args: argparse.Namespace, sampler: ResumableBatchSampler, device: torch.device, examples: Sequence[str]
) -> Settings:
    return Settings(
        epochs=args.epochs, batch_size=args.batch_size, seed=args.seed, max_steps=args.max_steps,
        save_every=args.save_every, eval_interval=args.eval_interval, accumulate=sampler.accumulate,
        amp=resolve_amp(args.amp, device), ema_decay=ema_decay(args), ema_every=args.ema_every, max_norm=args.clip_grad,
        sam_rho=args.sam, sam_every=args.sam_every, mixup_alpha=args.mixup, channels_last=args.channels_last,
        compile=args.compile, example_ids=examples,
    )  # fmt: skip


def run(trainer: Trainer, config: dict) -> int:
    """Train, and print the result. Returns the exit status."""
    folder = trainer.recorder.folder
    if trainer.is_finished:
        print_main(f"{folder.path} is finished at step {trainer.step}: nothing to do")
        return 0
    if is_main_process():
        folder.write_config(config)
        if trainer.step == 0:
            trainer.recorder.draw_first_batch(first_batch(trainer.train_loader))
    print_main(f"run folder {folder.path}")
    with trainer.signals:
        stopped_by = trainer.fit()
    if stopped_by:
        print_main(
            f"stopped by signal {stopped_by} after step {trainer.step}; continue with --resume {folder.checkpoint}"
        )
        return 128 + stopped_by
    if trainer.scores:
        print_main(
            f"{table(trainer.scores)}\nprotocol whole, output stride {trainer.model.output_stride}"
            f"{trainer.recorder.limit_text}"
        )
        print_main(f"best val mIoU {100 * trainer.best_miou:.2f}; {folder.best}")
        print_main(f"sheet {folder.sheet}\nreport {folder.report}")
    if trainer.recorder.broken.times:
        print_main(f"{trainer.recorder.broken}; {folder.broken}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
