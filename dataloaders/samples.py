"""Samples to draw: the crops of an epoch, the first batch of a run, and whole images."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import DataLoader

from dataloaders.base import SegmentationDataset
from dataloaders.datasets import EvalDataset, TrainDataset
from utils.scoring.samples import Sample

MAX_SAMPLES = 16  # of the first batch


def first_batch(loader: DataLoader) -> list[Sample]:
    """At most MAX_SAMPLES of the first batch of a `train_loader`, over all processes.

    They are loaded here once more, so the loader and the run's random numbers stay as they are. Raises UserError for an
    image that cannot be read: the first step would, too.
    """
    sampler = loader.batch_sampler
    order = sampler.order(0)
    return training_samples(loader.dataset, epoch=0, indices=order[: min(MAX_SAMPLES, sampler.batch_size)])


def training_samples(samples: TrainDataset, *, epoch: int, indices: Sequence[int]) -> list[Sample]:
    """The crops of `epoch`, counted from 0. Raises UserError for an image that cannot be read."""
    return [training_sample(samples, (epoch, int(index))) for index in indices]


def training_sample(samples: TrainDataset, key: tuple[int, int]) -> Sample:
    sample, (width, height) = samples.load(key)
    crop = samples.crop(key, (width, height))
    details = f"{width}x{height}, scale {crop.scale:.2f}{', flipped' if crop.is_flipped else ''}"
    padding = samples.transform.padding(crop).numpy()
    return Sample(sample["image"].numpy(), sample["label"].numpy(), padding, sample["id"], details)


def whole_samples(dataset: SegmentationDataset, *, indices: Sequence[int]) -> list[Sample]:
    """Whole images, as validation reads them. Raises UserError for an image that cannot be read."""
    return [whole_sample(EvalDataset(dataset)[int(index)]) for index in indices]


def whole_sample(sample: dict) -> Sample:
    image, label = sample["image"].numpy(), sample["label"].numpy()
    height, width = label.shape
    return Sample(image, label, np.zeros(label.shape, bool), sample["id"], f"{width}x{height}")
