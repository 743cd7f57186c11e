"""Other implementations' names and layouts of weights, in ours.

A difference between formats is a conversion here, or an option of the one network (`DeepLab.expect`).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modeling.deeplab import IMAGENET_MEAN, IMAGENET_STD
from modeling.pretrained.tf_names import convert_variables, tensorflow_preprocessing
from utils.errors import UserError

PYTORCH = {"epsilon": dict.fromkeys(("backbone", "aspp", "decoder"), 1e-5), "padding": "symmetric"}
IMAGENET_INPUT = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

# What classification networks end in and a backbone does not have: torchvision's ResNet, MobileNetV2, DRN
CLASSIFIER = re.compile(r"(backbone\.)?(fc\.|classifier\.|features\.18\.)")


class Weights(NamedTuple):
    """`format`, as a person calls it; `entries` under our names; `preprocessing`: arguments of `DeepLab.expect`."""

    format: str
    entries: dict[str, Tensor]
    preprocessing: dict


def translate(entries: Mapping) -> Weights:
    """Names to tensors or arrays of any format that is known, recognized by its names, in ours.

    Entries that no rule knows keep their names, so that a report shows them.
    Raises UserError for graphs that differ from ours.
    """
    entries = {name.removeprefix("module."): to_tensor(value) for name, value in entries.items()}  # of DataParallel
    names = entries.keys()
    if any("/" in name for name in names):
        return Weights("TensorFlow", convert_variables(entries), tensorflow_preprocessing(entries))
    tensors = {name: value for name, value in entries.items() if not CLASSIFIER.match(name)}
    if any(name.startswith(("backbone.low_level_features.", "backbone.block20.")) for name in names):
        raise UserError(
            "weights of jfzhang95's MobileNet or Xception: that MobileNet pads before its expansion "
            "and dilates other blocks, that Xception is another graph; neither fits: train from --backbone-weights"
        )
    if "aspp.global_avg_pool.1.weight" in names:
        return Weights("jfzhang95", from_jfzhang95(tensors), IMAGENET_INPUT | PYTORCH)
    if any(name.startswith("backbone.") for name in names):
        return Weights("own", tensors, {})
    tensors = {f"backbone.{name}": value for name, value in tensors.items()}
    preprocessing = {"epsilon": {"backbone": PYTORCH["epsilon"]["backbone"]}, "padding": PYTORCH["padding"]}
    origin = "DRN" if "backbone.layer0.0.weight" in tensors else "torchvision"
    return Weights(origin, tensors, IMAGENET_INPUT | preprocessing)


def to_tensor(value: Tensor | np.ndarray | np.generic) -> Tensor:
    """Arrays of any byte order and stride too: torch takes neither."""
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))


def from_jfzhang95(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """jfzhang95/pytorch-deeplab-xception, ResNet and DRN: backbones alike, other names behind, image pooling last."""
    renamed = {jfzhang95_name(name): value for name, value in tensors.items()}
    project = renamed["aspp.project.0.weight"]
    width = renamed["aspp.branches.0.0.weight"].shape[0]
    renamed["aspp.project.0.weight"] = torch.cat([project[:, -width:], project[:, :-width]], dim=1)
    return renamed


JFZHANG95_NAMES = [
    (r"aspp\.global_avg_pool\.([12])\.", lambda m: f"aspp.branches.0.{int(m[1]) - 1}."),
    (r"aspp\.aspp(\d)\.atrous_conv\.", lambda m: f"aspp.branches.{m[1]}.0."),
    (r"aspp\.aspp(\d)\.bn\.", lambda m: f"aspp.branches.{m[1]}.1."),
    (r"(aspp|decoder)\.conv1\.", lambda m: f"{m[1]}.project.0."),
    (r"(aspp|decoder)\.bn1\.", lambda m: f"{m[1]}.project.1."),
    (r"decoder\.last_conv\.8\.", lambda m: "decoder.classifier."),
    (r"decoder\.last_conv\.([0145])\.", lambda m: f"decoder.refine.{int(m[1]) // 4}.{int(m[1]) % 4}."),
]


def jfzhang95_name(name: str) -> str:
    for pattern, to_ours in JFZHANG95_NAMES:
        name = re.sub(f"^{pattern}", to_ours, name)
    return name
