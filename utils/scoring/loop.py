"""The scoring loop."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utils.distributed.device import tune_convolutions
from utils.progress import progress
from utils.scoring.metrics import ConfusionMatrix
from utils.scoring.visualize import Example


class Observer(Protocol):
    """Receives every scored image once. Each process observes its own images; `all_reduce` merges them at the end."""

    def update(self, key: str, prediction: Tensor, label: Tensor) -> None:
        """`prediction` and `label` of the image with the id `key`: uint8 [H, W] on the CPU."""

    def all_reduce(self, device: torch.device) -> None:
        """Merge the results of all processes; `device` is where the backend reduces tensors."""


@torch.no_grad()
def score(
    predict: Callable[[Tensor], Tensor],
    loader: DataLoader,
    *,
    num_classes: int,
    device: torch.device,
    num_examples: int = 0,
    observers: Sequence[Observer] = (),
) -> tuple[ConfusionMatrix, list[Example]]:
    """Compare `predict` (uint8 [B, 3, H, W] -> scores [B, K, H, W] on `device`) with the labels of `loader`.

    Returns the confusion matrix over all processes, and up to `num_examples` of this process's images.
    """
    tune_convolutions(False)
    confusion, examples = ConfusionMatrix(num_classes, device), []
    spacing = max(1, len(loader) // max(1, num_examples))  # neighbors in a list are often alike
    with progress("scoring", 0, len(loader), iterable=loader, unit="batch") as bar:
        for index, batch in enumerate(bar):
            prediction = predict(batch["image"]).argmax(1)  # [B, H, W]
            confusion.update(prediction, batch["label"].to(device, non_blocking=True))
            is_example = index % spacing == 0 and len(examples) < num_examples
            if is_example or observers:
                prediction = prediction.to("cpu", torch.uint8)
            for observer in observers:
                for key, predicted, label in zip(batch["id"], prediction, batch["label"], strict=True):
                    observer.update(key, predicted, label)
            if is_example:
                examples += map(Example, batch["image"].numpy(), batch["label"].numpy(), prediction.numpy())
    confusion.all_reduce()
    for observer in observers:
        observer.all_reduce(device)
    return confusion, examples[:num_examples]
