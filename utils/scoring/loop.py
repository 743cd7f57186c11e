"""The scoring loop."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.distributed.device import tune_convolutions
from utils.distributed.host_copy import HostCopy
from utils.inference import Predictor
from utils.labels import scores_to_labels
from utils.progress import progress
from utils.scoring.cross_entropy import MeanCrossEntropy
from utils.scoring.metrics import ConfusionMatrix

NUM_THREADS = min(4, os.cpu_count() or 1)  # that observe images
MAX_PENDING = 2 * NUM_THREADS  # images that they have in memory


class Observer:
    """Receives every scored image once. Each process observes its own images; `all_reduce` merges them at the end."""

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None) -> object:
        """What `add` takes, for the image with the id `key`, all on the CPU.

        `prediction` and `label` uint8 [H, W], `image` uint8 [3, H, W].

        Several threads call it at once: it changes nothing of the observer.
        """
        raise NotImplementedError

    def add(self, measured: object) -> None:
        """Add an image to the results. The main thread calls it, in the order of the images."""
        raise NotImplementedError

    def update(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None = None) -> None:
        """Measure and add an image; few observers look at `image` itself."""
        self.add(self.measure(key, prediction, label, image))

    def all_reduce(self, device: torch.device) -> None:
        """Merge the results of all processes; `device` is where the backend reduces tensors."""
        raise NotImplementedError


@torch.no_grad()
def score(
    predict: Predictor | Callable[[Tensor], Tensor],
    loader: DataLoader,
    *,
    num_classes: int,
    device: torch.device,
    observers: Sequence[Observer] = (),
    loss: MeanCrossEntropy | None = None,
) -> ConfusionMatrix:
    """Compare `predict` (uint8 [B, 3, H, W] -> scores [B, K, H, W] on `device`) with the labels of `loader`.

    Returns the confusion matrix over all processes. Where `loss` is given, the scores are logits, and it gets them.
    """
    tune_convolutions(False)
    confusion = ConfusionMatrix(num_classes, device)
    with (
        progress("scoring", 0, len(loader), iterable=loader, unit="batch") as bar,
        ObserverThreads(observers) as threads,
    ):
        for batch in bar:
            label = batch["label"].to(device, non_blocking=True)
            prediction = predict_labels(predict, batch["image"], label, loss)
            confusion.update(prediction, label)
            if observers:
                threads.submit(batch, HostCopy(prediction))
        threads.finish()
    confusion.all_reduce()
    for observer in observers:
        observer.all_reduce(device)
    return confusion


def predict_labels(
    predict: Predictor | Callable[[Tensor], Tensor], image: Tensor, label: Tensor, loss: MeanCrossEntropy | None
) -> Tensor:
    """uint8 [B, H, W]. The scores of a Predictor, which `loss` gets too, never exist whole."""
    strips = predict.strips(image) if isinstance(predict, Predictor) else [predict(image)]
    prediction, top = torch.empty_like(label), 0
    for scores in strips:
        rows = slice(top, top := top + scores.shape[2])
        prediction[:, rows] = scores_to_labels(scores)
        if loss:
            loss.update(scores, label[:, rows])
    return prediction


class ObserverThreads:
    """Measures images in threads while the device computes the next ones, at most `MAX_PENDING` at a time.

    Use it in a with-block. An error of an observer is raised by one of the next calls, in the order of the images.
    """

    def __init__(self, observers: Sequence[Observer]):
        self.observers, self.pending, self.last = observers, deque[Future](), None
        # One torch thread in each; threads start with the first image, after the data workers are forked
        self.pool = ThreadPoolExecutor(NUM_THREADS, "observer", torch.set_num_threads, (1,))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown(cancel_futures=True)

    def submit(self, batch: dict, prediction: HostCopy) -> None:
        """Start measuring the batch before this one: its copy is read when the device already computes this one."""
        before, self.last = self.last, (batch, prediction)
        if before:
            self.start(*before)

    def start(self, batch: dict, prediction: HostCopy) -> None:
        for image in zip(batch["id"], prediction.read(), batch["label"], batch["image"], strict=True):
            self.pending.append(self.pool.submit(self.measure, *image))
            while self.pending and (len(self.pending) >= MAX_PENDING or self.pending[0].done()):
                self.add_first()

    def measure(self, *image) -> list:
        return [observer.measure(*image) for observer in self.observers]

    def add_first(self) -> None:
        for observer, measured in zip(self.observers, self.pending.popleft().result(), strict=True):
            observer.add(measured)

    def finish(self) -> None:
        """Measure and add what is left."""
        if self.last:
            self.start(*self.last)
        while self.pending:
            self.add_first()
