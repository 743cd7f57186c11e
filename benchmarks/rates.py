"""Images per second of training and scoring. For benchmarks.gpu."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.cases import NUM_CLASSES, Case
from benchmarks.peers import PEERS, plain_epoch
from engine import Settings, Trainer
from modeling.deeplab import LowResolutionLogits
from utils.inference import Predictor
from utils.losses import build_loss
from utils.optim import build_optimizer
from utils.palettes import VOC_CLASSES, voc_palette
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder
from utils.run.signals import StopSignals
from utils.scoring.loop import score

LEARNING_RATE = 1e-4  # low: on random labels the loss must stay finite


class Measured(NamedTuple):
    images_per_second: float  # median of the repeats
    gib: float | None  # peak of PyTorch's allocations on the GPU after the warm-up


def measure(epoch: Callable[[], object], *, num_images: int, repeats: int, device: torch.device) -> Measured:
    """Time `epoch()`, which processes `num_images`, `repeats` times after once as a warm-up."""
    synchronize = torch.get_device_module(device).synchronize
    seconds = []
    for _ in range(repeats + 1):
        synchronize()
        if device.type == "cuda" and len(seconds) == 1:
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        epoch()
        synchronize()
        seconds.append(time.perf_counter() - start)
    gib = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return Measured(num_images / statistics.median(seconds[1:]), gib)


def random_batch(batch_size: int, height: int, width: int, *, pin_memory: bool) -> dict:
    """What a loader gives: uint8 on the host, in pinned memory for a GPU."""
    image = torch.randint(0, 256, (batch_size, 3, height, width), dtype=torch.uint8)
    label = torch.randint(0, NUM_CLASSES, (batch_size, height, width), dtype=torch.uint8)
    if pin_memory:
        image, label = image.pin_memory(), label.pin_memory()
    return {"image": image, "label": label, "id": [str(index) for index in range(batch_size)]}


class MemoryLoader:
    """Epochs of `steps_per_epoch` steps over `batches` in turn, with the methods that Trainer calls."""

    def __init__(self, batches: Sequence[dict], steps_per_epoch: int):
        self.batches, self.steps_per_epoch, self.batch_sampler = batches, steps_per_epoch, self

    def set_position(self, epoch: int, step: int) -> None:
        pass

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[dict]:
        return itertools.islice(itertools.cycle(self.batches), self.steps_per_epoch)


def make_trainer(case: Case, loader: Iterable[dict], folder: Path, *, batch_size: int, device: torch.device) -> Trainer:
    """As train.py builds it, with random weights. It writes TensorBoard events into `folder`."""
    model = case.build().to(device)
    optimizer = build_optimizer(
        model, model.backbone, lr=LEARNING_RATE, head_lr_factor=1.0, weight_decay=1e-4, momentum=0.9, nesterov=False
    )
    recorder = Recorder(RunFolder(folder), classes=VOC_CLASSES, palette=voc_palette(NUM_CLASSES), extra={})
    recorder.open(0, 0, 0)
    settings = Settings(
        epochs=100, batch_size=batch_size, amp=case.amp, channels_last=case.channels_last, compile=case.compile
    )
    return Trainer(
        model, build_loss("ce").to(device), optimizer, lambda step: 1.0, loader, None, settings=settings,
        classes=VOC_CLASSES, recorder=recorder, signals=StopSignals(), device=device,
        network=LowResolutionLogits(model),
    )  # fmt: skip


def training_rate(
    case: Case, *, size: int, batch_size: int, steps: int, repeats: int, device: torch.device
) -> Measured:
    """Train on random images of `size` x `size` in memory, by Trainer, or a peer by `plain_epoch`."""
    batches = [random_batch(batch_size, size, size, pin_memory=device.type == "cuda") for _ in range(2)]
    loader, how = MemoryLoader(batches, steps), {"num_images": steps * batch_size, "repeats": repeats, "device": device}
    if case.network in PEERS:
        epoch = plain_epoch(
            case.build(), loader, lr=LEARNING_RATE, amp=case.amp, memory_format=case.memory_format,
            is_compiled=case.compile, device=device,
        )  # fmt: skip
        return measure(epoch, **how)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(case, loader, Path(folder), batch_size=batch_size, device=device)

        def epoch() -> None:
            trainer.train_one_epoch()
            trainer.epoch += 1  # `Trainer.finish_epoch` would also write a checkpoint

        return measure(epoch, **how)


def scoring_rate(
    case: Case, loader: Iterable[dict], *, num_images: int, repeats: int, device: torch.device
) -> Measured:
    """Score the `num_images` images of `loader` by Predictor, argmax and confusion matrix, as a validation does."""
    model = case.build().to(device, memory_format=case.memory_format)
    predictor = Predictor(model, device, amp=case.amp)
    return measure(
        lambda: score(predictor, loader, num_classes=NUM_CLASSES, device=device),
        num_images=num_images, repeats=repeats, device=device,
    )  # fmt: skip
