"""Batch norm in training: over several processes, and with enough images."""

import torch
from torch import nn

from utils.distributed import print_main
from utils.errors import UserError


def sync_batch_norm(network: nn.Module, is_on: bool | None, device: torch.device, num_processes: int) -> nn.Module:
    """`network` with nn.SyncBatchNorm if several GPUs train, unless `is_on` is False; else `network` as it is.

    Raises UserError if `is_on` is True without a GPU.
    """
    is_cuda = device.type == "cuda"
    if is_on and not is_cuda:
        raise UserError("`sync_bn` works on GPUs alone: leave it out here")
    if num_processes > 1 and not is_cuda:
        print_main("on the CPU each process normalizes its own images: local batch norm")
    if num_processes > 1 and is_cuda and is_on is not False:
        owners = [layer for layer in network.modules() if hasattr(layer, "convert_sync_batch_norm")]
        convert = owners[0].convert_sync_batch_norm if owners else nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(network)
    return network


def require_two_images(model: nn.Module, batch_size: int, num_micro_batches: int) -> None:
    """Raise UserError if local batch norm would train on one image. `num_micro_batches`: per step, of all processes."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]  # not SyncBatchNorm
    if batch_size == num_micro_batches and any(layer.training for layer in layers):
        raise UserError(
            f"`batch_size` {batch_size} leaves batch norm 1 image a process and micro-batch: give at least "
            f"{2 * num_micro_batches}, or `freeze_bn`"
        )
