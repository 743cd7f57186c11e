"""Other implementations' names and layouts of weights, in ours.

A difference between formats is a conversion here, or an option of the one network (`DeepLab.expect`).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from errors import UserError
from modeling.deeplab import IMAGENET_MEAN, IMAGENET_STD

HEAD_EPSILON = 1e-5
PYTORCH = {"epsilon": dict.fromkeys(("backbone", "aspp", "decoder"), 1e-5), "padding": "symmetric"}
IMAGENET_INPUT = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
UNIT_INPUT = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # [-1, 1]: x * 2 / 255 - 1, TF feature_extractor.py

# What classification networks end in and a backbone does not have: torchvision's ResNet, MobileNetV2, DRN; TF's
CLASSIFIER = re.compile(
    r"(backbone\.)?(fc\.|classifier\.|features\.18\.)|(xception|resnet_v1)_\d+/logits/|MobilenetV2/(Conv_1|Logits)/"
)


class Weights(NamedTuple):
    """`format`, as a person calls it; `entries` under our names; `expects`: arguments of `DeepLab.expect`."""

    format: str
    entries: dict[str, Tensor]
    expects: dict


def translate(entries: Mapping) -> Weights:
    """Names to tensors or arrays of any format that is known, recognised by its names, in ours.

    Entries that no rule knows keep their names, so that a report shows them.
    Raises UserError for values that are no tensors, and for graphs that differ from ours.
    """
    entries = {name.removeprefix("module."): value for name, value in entries.items()}  # of DataParallel
    if not entries or not all(isinstance(value, Tensor | np.ndarray | np.generic) for value in entries.values()):
        raise UserError("no weights in it: names with tensors or arrays are needed")
    names = entries.keys()
    if any("/" in name for name in names):
        return from_tensorflow(entries)
    tensors = {name: torch.as_tensor(value) for name, value in entries.items() if not CLASSIFIER.match(name)}
    if any(name.startswith(("backbone.low_level_features.", "backbone.block20.")) for name in names):
        raise UserError(
            "weights of the known implementation's MobileNet or Xception: that MobileNet pads before its expansion "
            "and dilates other blocks, that Xception is another graph; neither fits: train from --backbone-weights"
        )
    if "aspp.global_avg_pool.1.weight" in names:
        return Weights("known implementation", from_known(tensors), IMAGENET_INPUT | PYTORCH)
    if any(name.startswith("backbone.") for name in names):
        return Weights("own", tensors, {})
    tensors = {f"backbone.{name}": value for name, value in tensors.items()}
    expects = {"epsilon": {"backbone": PYTORCH["epsilon"]["backbone"]}, "padding": PYTORCH["padding"]}
    return Weights("DRN" if "backbone.layer0.0.weight" in tensors else "torchvision", tensors, IMAGENET_INPUT | expects)


def from_known(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """jfzhang95/pytorch-deeplab-xception, ResNet and DRN: backbones alike, other names behind, image pooling last."""
    renamed = {known_name(name): value for name, value in tensors.items()}
    project = renamed["aspp.project.0.weight"]
    width = renamed["aspp.branches.0.0.weight"].shape[0]
    renamed["aspp.project.0.weight"] = torch.cat([project[:, -width:], project[:, :-width]], dim=1)
    return renamed


KNOWN_NAMES = [
    (r"aspp\.global_avg_pool\.([12])\.", lambda m: f"aspp.branches.0.{int(m[1]) - 1}."),
    (r"aspp\.aspp(\d)\.atrous_conv\.", lambda m: f"aspp.branches.{m[1]}.0."),
    (r"aspp\.aspp(\d)\.bn\.", lambda m: f"aspp.branches.{m[1]}.1."),
    (r"(aspp|decoder)\.conv1\.", lambda m: f"{m[1]}.project.0."),
    (r"(aspp|decoder)\.bn1\.", lambda m: f"{m[1]}.project.1."),
    (r"decoder\.last_conv\.8\.", lambda m: "decoder.classifier."),
    (r"decoder\.last_conv\.([0145])\.", lambda m: f"decoder.refine.{int(m[1]) // 4}.{int(m[1]) % 4}."),
]


def known_name(name: str) -> str:
    for pattern, to_ours in KNOWN_NAMES:
        name = re.sub(f"^{pattern}", to_ours, name)
    return name


def from_tensorflow(variables: Mapping) -> Weights:
    """The official DeepLab or its ImageNet backbones; `global_step` and optimizer slots are left out."""
    entries = {}
    for name, value in variables.items():
        # A slot such as Momentum stands below the variable it belongs to
        if name == "global_step" or name.rpartition("/")[0] in variables or CLASSIFIER.match(name):
            continue
        entries[tensorflow_name(name)] = to_torch_layout(name, value)
    is_mobilenet = any(name.startswith("MobilenetV2/") for name in variables)
    is_resnet = any(name.startswith("resnet_v1_") for name in variables)
    epsilon = {"backbone": 1e-5 if is_resnet else 1e-3}
    if any(name.startswith("concat_projection/") for name in variables):
        epsilon |= dict.fromkeys(("aspp", "decoder"), HEAD_EPSILON)
    expects = {"epsilon": epsilon, "padding": "same" if is_mobilenet else "symmetric"}
    return Weights("TensorFlow", entries, UNIT_INPUT | expects)


def to_torch_layout(name: str, value: Tensor | np.ndarray) -> Tensor:
    """[kh, kw, in, out] -> [out, in, kh, kw]; depthwise [kh, kw, channels, 1] -> [channels, 1, kh, kw]."""
    value = torch.as_tensor(value)
    if value.ndim != 4:
        return value
    return value.permute(2, 3, 0, 1) if name.endswith("/depthwise_weights") else value.permute(3, 2, 0, 1)


LEAVES = {
    "weights": "weight",
    "depthwise_weights": "weight",
    "biases": "bias",
    "BatchNorm/gamma": "weight",
    "BatchNorm/beta": "bias",
    "BatchNorm/moving_mean": "running_mean",
    "BatchNorm/moving_variance": "running_var",
}
# Where the pointwise half of a separable convolution stands: behind depthwise and norm, or behind their ReLU too
PLAIN, ACTIVATED = {"depthwise": 0, "pointwise": 2}, {"depthwise": 0, "pointwise": 3}
Place = tuple[str, int]  # (a chain of layers, where its convolution stands; the norm stands behind it)
SCOPES: list[tuple[str, Callable[[re.Match], Place]]] = [
    (r"xception_\d+/entry_flow/conv1_(\d)", lambda m: (f"backbone.stem.{int(m[1]) - 1}", 0)),
    (
        r"xception_\d+/exit_flow/block2/unit_1/xception_module/separable_conv(\d)_(\w+)",
        lambda m: (f"backbone.final.{int(m[1]) - 1}", ACTIVATED[m[2]]),
    ),
    (
        r"xception_\d+/(\w+)_flow/block(\d+)/unit_(\d+)/xception_module/separable_conv(\d)_(\w+)",
        lambda m: (f"{xception_block(m)}.convs.{int(m[4]) - 1}", PLAIN[m[5]]),
    ),
    (
        r"xception_\d+/(\w+)_flow/block(\d+)/unit_(\d+)/xception_module/shortcut",
        lambda m: (f"{xception_block(m)}.shortcut", 0),
    ),
    (r"MobilenetV2/Conv", lambda m: ("backbone.features.0", 0)),
    (r"MobilenetV2/expanded_conv(?:_(\d+))?/(\w+)", lambda m: mobilenet_place(int(m[1] or 0), m[2])),
    (r"image_pooling", lambda m: ("aspp.branches.0", 0)),
    (r"aspp(\d)", lambda m: (f"aspp.branches.{int(m[1]) + 1}", 0)),
    (r"aspp(\d)_(depthwise|pointwise)", lambda m: (f"aspp.branches.{int(m[1]) + 1}", ACTIVATED[m[2]])),
    (r"concat_projection", lambda m: ("aspp.project", 0)),
    (r"decoder/feature_projection0", lambda m: ("decoder.project", 0)),
    (r"decoder/decoder_conv(\d)_(depthwise|pointwise)", lambda m: (f"decoder.refine.{m[1]}", ACTIVATED[m[2]])),
    (r"decoder/decoder_conv0/decoder_conv0_(\d)", lambda m: (f"decoder.refine.{int(m[1]) - 1}", 0)),
]


def xception_block(match: re.Match) -> str:
    flow, block, unit = match[1], int(match[2]), int(match[3])
    return {"entry": f"backbone.entry.{block - 1}", "middle": f"backbone.middle.{unit - 1}"}.get(flow, "backbone.exit")


def mobilenet_place(block: int, part: str) -> Place:
    """torchvision's blocks are chains of expand, depthwise and project; the first block has no expand."""
    position = ("expand", "depthwise", "project").index(part) - (block == 0)
    chain = f"backbone.features.{block + 1}.conv"
    return (chain, position) if part == "project" else (f"{chain}.{position}", 0)


def tensorflow_name(name: str) -> str:
    if name.startswith("logits/semantic/"):
        return f"decoder.classifier.{LEAVES[name.rpartition('/')[2]]}"
    match = re.fullmatch(r"(.+?)/(weights|depthwise_weights|BatchNorm/\w+)", name)
    for pattern, place in SCOPES if match and match[2] in LEAVES else ():
        if scope := re.fullmatch(pattern, match[1]):
            chain, position = place(scope)
            return f"{chain}.{position + match[2].startswith('BatchNorm/')}.{LEAVES[match[2]]}"
    return name
