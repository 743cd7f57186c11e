"""Translate the names and layouts of other implementations' weights to ours.

A difference that renaming does not cover is a setting of the network: see `DeepLab.configure`.
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

# Layers of classification networks that a backbone does not have: torchvision's ResNet, MobileNetV2, DRN
CLASSIFIER = re.compile(r"(backbone\.)?(fc\.|classifier\.)")
MOBILENET_CLASSIFIER = re.compile(r"(backbone\.)?(classifier\.|features\.18\.)")
# pattern at the beginning of a name -> ours
JFZHANG95_NAMES = [
    (r"aspp\.global_avg_pool\.([12])\.", lambda m: f"aspp.branches.0.{int(m[1]) - 1}."),
    (r"aspp\.aspp(\d)\.atrous_conv\.", lambda m: f"aspp.branches.{m[1]}.0."),
    (r"aspp\.aspp(\d)\.bn\.", lambda m: f"aspp.branches.{m[1]}.1."),
    (r"(aspp|decoder)\.conv1\.", lambda m: f"{m[1]}.project.0."),
    (r"(aspp|decoder)\.bn1\.", lambda m: f"{m[1]}.project.1."),
    (r"decoder\.last_conv\.8\.", lambda m: "decoder.classifier."),
    (r"decoder\.last_conv\.([0145])\.", lambda m: f"decoder.refine.{int(m[1]) // 4}.{int(m[1]) % 4}."),
]


class Weights(NamedTuple):
    """`format`: for messages; `entries`: by our names; `preprocessing`: arguments of `DeepLab.configure`."""

    format: str
    entries: dict[str, Tensor]
    preprocessing: dict


def translate(entries: Mapping) -> Weights:
    """Tensors by our names, from tensors or arrays by the names of any supported format.

    The names tell the format. Entries that no rule covers keep their names, so that a report shows them.
    Raises UserError for a graph that differs from ours.
    """
    entries = {name.removeprefix("module."): to_tensor(value) for name, value in entries.items()}  # of DataParallel
    names = entries.keys()
    if any("/" in name for name in names):
        return Weights("TensorFlow", convert_variables(entries), tensorflow_preprocessing(entries))
    is_mobilenet = any(name.removeprefix("backbone.").startswith("features.1.conv.") for name in names)
    classifier = MOBILENET_CLASSIFIER if is_mobilenet else CLASSIFIER
    tensors = {name: value for name, value in entries.items() if not classifier.match(name)}
    if any(name.startswith(("backbone.low_level_features.", "backbone.block20.")) for name in names):
        raise UserError(
            "weights of jfzhang95's MobileNet or Xception: that MobileNet pads before its expansion and dilates other "
            "blocks, that Xception is another graph; neither fits: train from `backbone_weights`"
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
    if isinstance(value, Tensor):
        return value
    # torch takes only the native byte order and no negative strides
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))


def from_jfzhang95(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of jfzhang95/pytorch-deeplab-xception with ResNet or DRN.

    The backbone's names are the same. Image pooling is the last branch there, so the projection's input is reordered.
    """
    renamed = {jfzhang95_name(name): value for name, value in tensors.items()}
    if not {"aspp.project.0.weight", "aspp.branches.0.0.weight"} <= renamed.keys():  # the report names them as missing
        return renamed
    project = renamed["aspp.project.0.weight"]
    width = renamed["aspp.branches.0.0.weight"].shape[0]  # channels of a branch
    renamed["aspp.project.0.weight"] = torch.cat([project[:, -width:], project[:, :-width]], dim=1)
    return renamed


def jfzhang95_name(name: str) -> str:
    for pattern, to_ours in JFZHANG95_NAMES:
        name = re.sub(f"^{pattern}", to_ours, name)
    return name
