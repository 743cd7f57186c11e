"""Loaders of uint8 batches `{"image": [B, 3, H, W], "label": [B, H, W], "id": [str] * B}`.

The images of training are channels last in memory, as decoded and as networks take them.
"""

from collections.abc import Callable, Sequence

import torch
from torch.utils.data import DataLoader, Subset, default_collate

from dataloaders.base import SegmentationDataset
from dataloaders.class_centers import ClassCenters
from dataloaders.datasets import EvalDataset, TrainDataset
from dataloaders.sampler import ResumableBatchSampler
from dataloaders.transforms import RandomScaleCrop, whole_image
from utils.run.worker_signals import ignore_signals_in_worker


def train_loader(
    dataset: SegmentationDataset,
    *,
    crop_size: tuple[int, int],
    base_size: int | None,
    mean: Sequence[float],
    batch_size: int,
    accumulate: int,
    seed: int,
    rank: int,
    world_size: int,
    workers: int,
    pin_memory: bool,
    skip_broken: bool,
    class_uniform: float = 0.0,
    color_jitter: float = 0.0,
) -> DataLoader:
    """Random crops in the micro-batches of `ResumableBatchSampler`, which is its `batch_sampler`.

    It is empty before the first `set_position`, so that its workers start without loading anything.
    Padding has the color `mean` (RGB, 0..1). `class_uniform`: the share of class-uniform samples; `color_jitter`: the
    strength of `ColorJitter`, or 0. Raises UserError for a batch that the sampler cannot make.
    """
    sampler = ResumableBatchSampler(
        len(dataset), batch_size, seed=seed, rank=rank, world_size=world_size, accumulate=accumulate,
        num_uniform=round(class_uniform * len(dataset)),
    )  # fmt: skip
    sampler.set_position(0, sampler.steps_per_epoch)
    fill = tuple(round(255 * value) for value in mean)
    crop = RandomScaleCrop(crop_size, fill=fill, base_size=base_size, jitter=make_jitter(color_jitter))
    centers = ClassCenters(dataset, skip_broken=skip_broken) if class_uniform else None
    return DataLoader(
        TrainDataset(dataset, crop, seed=seed, skip_broken=skip_broken, centers=centers),
        batch_sampler=sampler,
        collate_fn=collate_channels_last,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=init_worker,
    )


def collate_channels_last(samples: Sequence[dict]) -> dict:
    """As `default_collate`, of images that are channels last: stacked as they are in memory."""
    batch = default_collate([sample | {"image": sample["image"].permute(1, 2, 0)} for sample in samples])
    return batch | {"image": batch["image"].permute(0, 3, 1, 2)}


def make_jitter(strength: float) -> Callable | None:
    if not strength:
        return None
    from dataloaders.color_jitter import ColorJitter  # torchvision takes a second to import

    return ColorJitter(strength)


def eval_loader(
    dataset: SegmentationDataset,
    *,
    workers: int,
    pin_memory: bool,
    rank: int = 0,
    world_size: int = 1,
    transform: Callable = whole_image,
    skip_broken: bool = False,
    indices: Sequence[int] | None = None,
) -> DataLoader:
    """Batches of one image, since sizes differ: those of `indices`, or all. A process loads every `world_size`-th of
    them, none twice.
    """
    samples = EvalDataset(dataset, transform, skip_broken=skip_broken)
    subset = Subset(samples, (range(len(dataset)) if indices is None else indices)[rank::world_size])
    return DataLoader(
        subset,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=init_worker,
    )


def start_workers(*loaders: DataLoader | None) -> None:
    """Start the workers of loaders made here, which then stay; `utils.distributed.connect` says why before it.

    Those of an `eval_loader` decode their first images at once, and again when it is iterated.
    """
    for loader in loaders:
        if loader is not None and loader.num_workers:
            iter(loader)


def init_worker(_worker: int) -> None:
    """One thread for each worker; the main process alone handles SIGINT and SIGTERM."""
    ignore_signals_in_worker()
    torch.set_num_threads(1)
