"""The time that a training step waits for its batch, with images as JPEG files. For benchmarks.gpu."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.cases import Case
from benchmarks.input import write_voc
from benchmarks.rates import make_trainer
from dataloaders import eval_loader, train_loader
from dataloaders.transforms import Pixels, whole_image
from dataloaders.voc import VOC
from modeling.deeplab import IMAGENET_MEAN

NUM_FILES = 40


class TimedLoader:
    """A training loader that keeps when each batch was requested and received, in seconds."""

    def __init__(self, loader: DataLoader):
        self.loader, self.batch_sampler = loader, loader.batch_sampler
        self.requested: list[float] = []
        self.received: list[float] = []

    def __iter__(self) -> Iterator[dict]:
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            self.requested.append(time.perf_counter())
            batch = next(batches)
            self.received.append(time.perf_counter())
            yield batch


class Waiting(NamedTuple):
    """Mean seconds, over the second half of an epoch: by then the batches loaded in advance are used up."""

    wait: float  # from the request of a batch to its arrival
    step: float  # from the request of a batch to that of the next


def waiting(loader: TimedLoader) -> Waiting:
    half = len(loader.requested) // 2
    requested, received = loader.requested[half:], loader.received[half:]
    waits = [end - start for start, end in zip(requested, received, strict=True)]
    return Waiting(statistics.mean(waits[:-1]), statistics.mean(b - a for a, b in itertools.pairwise(requested)))


def waiting_in_training(case: Case, loader: DataLoader, *, batch_size: int, device: torch.device) -> Waiting:
    """Train on the whole `loader` once."""
    timed = TimedLoader(loader)
    with tempfile.TemporaryDirectory() as folder:
        make_trainer(case, timed, Path(folder), batch_size=batch_size, device=device).train_one_epoch()
    return waiting(timed)


def waiting_without_training(loader: DataLoader) -> Waiting:
    """Only load: then `step` is the time in which the workers make a batch."""
    timed = TimedLoader(loader)
    timed.batch_sampler.set_position(0, 0)
    for _ in timed:
        pass
    return waiting(timed)


def open_files(folder: Path, count: int) -> VOC:
    """`count` images: those that `write_voc` wrote into `folder`, again and again. They stay in the page cache."""
    dataset = VOC(folder, "train")
    for name in ("ids", "image_files", "label_files"):
        setattr(dataset, name, list(itertools.islice(itertools.cycle(getattr(dataset, name)), count)))
    return dataset


def write_files(folder: Path) -> None:
    write_voc(folder, NUM_FILES)


def training_loader(
    folder: Path, *, num_steps: int, size: int, batch_size: int, workers: int, device: torch.device
) -> DataLoader:
    """An epoch of `num_steps` batches of random crops."""
    return train_loader(
        open_files(folder, num_steps * batch_size), crop_size=(size, size), base_size=None, mean=IMAGENET_MEAN,
        batch_size=batch_size, accumulate=1, seed=1, rank=0, world_size=1, workers=workers,
        pin_memory=device.type == "cuda", skip_broken=False,
    )  # fmt: skip


def scoring_loader(folder: Path, *, num_images: int, workers: int, device: torch.device) -> DataLoader:
    """Images of VOC's most frequent size, 500x375, cut from the decoded files."""
    dataset = open_files(folder, num_images)
    return eval_loader(dataset, workers=workers, pin_memory=device.type == "cuda", transform=cut_to_voc)


def cut_to_voc(image: Pixels, label: Pixels) -> tuple[Tensor, Tensor]:
    return whole_image(np.asarray(image)[:375, :500], np.asarray(label)[:375, :500])
