"""Weights from elsewhere into a network, with a report of what went where."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, ResNet101_Weights

from errors import UserError
from utils.checkpoint import read_checkpoint
from utils.distributed import say

IMAGENET = {
    "resnet": ResNet101_Weights.DEFAULT,
    "resnet50": ResNet50_Weights.DEFAULT,
    "mobilenet": MobileNet_V2_Weights.DEFAULT,
}
# What classification networks end in and a backbone does not have: torchvision's ResNet, MobileNetV2, DRN
CLASSIFIERS = ("fc.", "classifier.", "features.18.")


@dataclass
class WeightsReport:
    """Names: `loaded` into the network, `missing` from the source, `unexpected` in it, `mismatched` in shape."""

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        counts = {name: len(entries) for name, entries in vars(self).items()}
        return ", ".join(f"{count} {name}" for name, count in counts.items())

    def examples(self) -> str:
        names = self.missing + self.mismatched
        return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> WeightsReport:
    """Copy into `model` every entry of `source` (a file, or names to tensors) whose name and shape it has.

    The source may be one of our checkpoints, or a backbone alone under torchvision's or DRN's names. `model` may be a
    whole network or a backbone. Nothing is judged here: see the report.
    """
    entries = source if isinstance(source, Mapping) else read_weights(Path(source))
    own = model.state_dict()
    if any(name.startswith("backbone.") for name in own):
        if not any(name.startswith("backbone.") for name in entries):
            entries = {f"backbone.{name}": value for name, value in entries.items()}
    elif any(name.startswith("backbone.") for name in entries):
        prefix = "backbone."
        entries = {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
    shared = [name for name in own if name in entries]
    report = WeightsReport(
        loaded=[name for name in shared if own[name].shape == entries[name].shape],
        missing=[name for name in own if name not in entries and not name.endswith("num_batches_tracked")],
        unexpected=[name for name in entries if name not in own and not is_classifier(name)],
        mismatched=[name for name in shared if own[name].shape != entries[name].shape],
    )
    model.load_state_dict({name: entries[name] for name in report.loaded}, strict=False)
    return report


def load_backbone_weights(backbone: nn.Module, name: str, source: str) -> None:
    """Fill `backbone` from `source`: none, imagenet or a file. Raises UserError where it is not wholly filled."""
    if source == "none":
        return
    if source != "imagenet":
        report = load_weights(backbone, source)
    elif name in IMAGENET:
        report = load_weights(backbone, download(name))
    else:
        raise UserError(f"--backbone-weights imagenet: there are none for {name} here: give none, or FILE")
    say(f"backbone weights {source}: {report}")
    if report.missing or report.mismatched:
        raise UserError(
            f"{source} does not fill the {name} backbone ({report}; such as {report.examples()}): "
            "give weights of this very network, or --backbone-weights none"
        )


def download(name: str) -> Mapping[str, Tensor]:
    """torchvision's weights for a backbone, from its cache or, the first time, the network."""
    weights = IMAGENET[name]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise UserError(
            f"cannot download {weights.url} ({error}): put the file at {target}, "
            "or give --backbone-weights FILE, or none"
        ) from error


def read_weights(path: Path) -> Mapping[str, Tensor]:
    entries = read_checkpoint(path)
    entries = entries.get("state_dict", entries)
    if not entries or not all(isinstance(value, Tensor) for value in entries.values()):
        raise UserError(f"{path} holds no weights: a file of names and tensors is needed")
    return entries


def is_classifier(name: str) -> bool:
    return name.removeprefix("backbone.").startswith(CLASSIFIERS)
