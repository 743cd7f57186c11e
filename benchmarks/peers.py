"""DeepLab with ResNet-101 of other libraries, and a plain loop that trains it. For benchmarks.gpu."""

import importlib.util
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from modeling.deeplab import IMAGENET_MEAN, IMAGENET_STD
from utils.constants import IGNORE_INDEX
from utils.distributed.device import autocast, tune_convolutions
from utils.inference import Normalize


class Peer(NamedTuple):
    """A network as its library builds it, with random weights. `build(num_classes)`; sides are k * `divisor`."""

    title: str
    module: str
    output_stride: int
    divisor: int
    build: Callable[[int], nn.Module]


def build_smp(num_classes: int, encoder: str = "resnet101") -> nn.Module:
    import segmentation_models_pytorch as smp  # not a requirement

    return smp.DeepLabV3Plus(encoder, encoder_weights=None, classes=num_classes)


def build_torchvision(num_classes: int) -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_resnet101  # not a requirement

    return deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=num_classes)


PEERS = {
    "smp": Peer("SMP DeepLabV3Plus, ResNet-101", "segmentation_models_pytorch", 16, 16, build_smp),
    "torchvision": Peer("torchvision deeplabv3_resnet101", "torchvision", 8, 1, build_torchvision),
}


def installed_peers() -> list[str]:
    return [name for name, peer in PEERS.items() if importlib.util.find_spec(peer.module)]


def plain_epoch(
    model: nn.Module,
    loader: Iterable[dict],
    *,
    lr: float,
    amp: str,
    memory_format: torch.memory_format,
    is_compiled: bool,
    device: torch.device,
) -> Callable[[], None]:
    """A function that trains on `loader` once: mean cross-entropy under autocast, fused SGD; it reads no loss."""
    model.to(device, memory_format=memory_format).train()
    network = torch.compile(model) if is_compiled else model
    is_fused = device.type != "mps"
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4, fused=is_fused)
    normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD, device)

    def epoch() -> None:
        tune_convolutions(True)
        for batch in loader:
            image = normalize(batch["image"].to(device, non_blocking=True)).contiguous(memory_format=memory_format)
            label = batch["label"].to(device, non_blocking=True).long()
            optimizer.zero_grad()
            with autocast(amp, device):
                output = network(image)
                logits = output["out"] if isinstance(output, dict) else output  # torchvision's is a dict
                loss = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX)
            loss.backward()
            optimizer.step()

    return epoch
