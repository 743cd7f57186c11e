"""--accumulate auto: how many micro-batches, by a trial of the network, the loss and the crops of the run."""

import argparse

import torch
from torch import nn

from config.resolve import ema_decay
from dataloaders.sampler import ResumableBatchSampler
from modeling import DeepLab
from utils.distributed.device import resolve_amp
from utils.inference import Normalize
from utils.micro_batches import fewest_micro_batches, possible_counts
from utils.train_step import Criterion, TrainStep


def find_accumulate(
    args: argparse.Namespace,
    model: DeepLab,
    network: nn.Module,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    sampler: ResumableBatchSampler,
) -> int:
    """The fewest micro-batches that fit in memory; `network` is that of the training step, with `model` in it."""
    device = next(network.parameters()).device
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    step = TrainStep(
        network, criterion, optimizer, torch.amp.GradScaler(device.type, enabled=False),
        normalize=Normalize(model.mean, model.std, device), amp=resolve_amp(args.amp, device),
        memory_format=memory_format, device=device, mixup_alpha=args.mixup,
    )  # fmt: skip
    is_local = any(isinstance(layer, nn.BatchNorm2d) and layer.training for layer in network.train().modules())
    images = sampler.batch_size // sampler.world_size
    return fewest_micro_batches(
        step, possible_counts(images, fewest=sampler.accumulate, smallest=2 if is_local else 1), batch_size=images,
        crop_size=args.crop_size, num_classes=model.num_classes, reserve=copies(args) * weight_bytes(network),
    )  # fmt: skip


def copies(args: argparse.Namespace) -> int:
    """Tensors of the size of a weight that the run keeps of it besides its gradient."""
    return (2 if args.optimizer == "adamw" else 1) + bool(ema_decay(args)) + 2 * bool(args.sam)


def weight_bytes(network: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in network.parameters())
