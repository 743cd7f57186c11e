"""The scoring loop."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from utils.device import tune_convolutions
from utils.inference import Normalise, whole_image_logits
from utils.metrics import ConfusionMatrix
from utils.progress import progress
from utils.visualize import Example, to_examples


@torch.no_grad()
def score(
    model: nn.Module, loader: DataLoader, *, num_classes: int, device: torch.device, num_examples: int = 0
) -> tuple[ConfusionMatrix, list[Example]]:
    """The default protocol: every picture whole, at its own size, in one forward pass.

    Returns the confusion matrix over all processes, and `num_examples` pictures, spread over this process's part.
    """
    model.eval()
    tune_convolutions(False)
    confusion, examples = ConfusionMatrix(num_classes, device), []
    normalise = Normalise(model.mean, model.std, device)
    spacing = max(1, len(loader) // max(1, num_examples))  # neighbours in a list are often alike
    for number, batch in enumerate(progress("scoring", 0, len(loader), iterable=loader, unit="batch")):
        image = batch["image"].to(device, non_blocking=True)
        logits = whole_image_logits(model, image, normalise=normalise, output_stride=model.output_stride)
        prediction = logits.argmax(1)
        confusion.update(prediction, batch["label"].to(device, non_blocking=True))
        if number % spacing == 0 and len(examples) < num_examples:
            examples += to_examples(batch["image"].numpy(), batch["label"].numpy(), prediction.cpu().numpy())
    confusion.all_reduce()
    return confusion, examples[:num_examples]
