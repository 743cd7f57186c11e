"""Translate the variables of the official TensorFlow DeepLab and its ImageNet backbones to our names and layouts."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

INPUT = {"mean": (0.5,) * 3, "std": (0.5,) * 3}  # [-1, 1]: x * 2 / 255 - 1, core/feature_extractor.py
HEAD_EPSILON = 1e-5
# Scope of a backbone -> epsilon of its batch norms, padding of its strided convolutions
BACKBONE_SETTINGS = {
    "xception_": (1e-3, "symmetric"),
    "resnet_v1_": (1e-5, "symmetric"),
    "MobilenetV2/": (1e-3, "same"),
}
LOGITS = ("logits/semantic/weights", "logits/semantic/biases")  # the last axis is that of the classes
CLASSIFIER = re.compile(r"(xception|resnet_v1)_\d+/logits/|MobilenetV2/(Conv_1|Logits)/")


def convert_variables(variables: Mapping) -> dict[str, Tensor]:
    """Tensors in our layout by our names, without `global_step`, optimizer slots and ImageNet's classifier."""
    entries = {}
    for name, value in variables.items():
        # An optimizer slot is named below its variable, such as VARIABLE/Momentum
        if name == "global_step" or name.rpartition("/")[0] in variables or CLASSIFIER.match(name):
            continue
        entries[tensorflow_name(name)] = to_torch_layout(name, value)
    return entries


def tensorflow_preprocessing(variables: Mapping) -> dict:
    """The preprocessing that these weights were trained with, as arguments of `DeepLab.configure`."""
    scopes = (scope for scope in BACKBONE_SETTINGS if any(name.startswith(scope) for name in variables))
    epsilon, padding = BACKBONE_SETTINGS[next(scopes, "xception_")]
    epsilons = {"backbone": epsilon}
    if any(name.startswith("concat_projection") for name in variables):
        epsilons |= dict.fromkeys(("aspp", "decoder"), HEAD_EPSILON)
    return INPUT | {"epsilon": epsilons, "padding": padding}


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
# Position of both convolutions in SeparableConv, and in SeparableConvBNReLU, which has a ReLU between them
PLAIN, ACTIVATED = {"depthwise": 0, "pointwise": 2}, {"depthwise": 0, "pointwise": 3}
Layers = tuple[str, str]  # our names of a convolution and of its batch norm
# Pattern of a TensorFlow scope -> Layers
SCOPES: list[tuple[str, Callable[[re.Match], Layers]]] = [
    (r"xception_\d+/entry_flow/conv1_(\d)", lambda m: at(f"backbone.stem.{int(m[1]) - 1}", 0)),
    (
        r"xception_\d+/exit_flow/block2/unit_1/xception_module/separable_conv(\d)_(depthwise|pointwise)",
        lambda m: at(f"backbone.final.{int(m[1]) - 1}", ACTIVATED[m[2]]),
    ),
    (
        r"xception_\d+/(entry|middle|exit)_flow/block(\d+)/unit_(\d+)/xception_module/separable_conv(\d)_(depthwise|pointwise)",
        lambda m: at(f"{xception_block(m)}.convs.{int(m[4]) - 1}", PLAIN[m[5]]),
    ),
    (
        r"xception_\d+/(entry|middle|exit)_flow/block(\d+)/unit_(\d+)/xception_module/shortcut",
        lambda m: at(f"{xception_block(m)}.shortcut", 0),
    ),
    (r"resnet_v1_\d+/conv1_(\d)", lambda m: at(f"backbone.stem.{int(m[1]) - 1}", 0)),
    (
        r"resnet_v1_\d+/block(\d)/unit_(\d+)/bottleneck_v1/shortcut",
        lambda m: at(f"backbone.layer{m[1]}.{int(m[2]) - 1}.downsample", 0),
    ),
    (
        r"resnet_v1_\d+/block(\d)/unit_(\d+)/bottleneck_v1/conv(\d)",
        lambda m: tuple(f"backbone.layer{m[1]}.{int(m[2]) - 1}.{kind}{m[3]}" for kind in ("conv", "bn")),
    ),
    (r"MobilenetV2/Conv", lambda m: at("backbone.features.0", 0)),
    (
        r"MobilenetV2/expanded_conv(?:_(\d+))?/(expand|depthwise|project)",
        lambda m: mobilenet_layers(int(m[1] or 0), m[2]),
    ),
    (r"image_pooling", lambda m: at("aspp.branches.0", 0)),
    (r"aspp(\d)", lambda m: at(f"aspp.branches.{int(m[1]) + 1}", 0)),
    (r"aspp(\d)_(depthwise|pointwise)", lambda m: at(f"aspp.branches.{int(m[1]) + 1}", ACTIVATED[m[2]])),
    (r"concat_projection", lambda m: at("aspp.project", 0)),
    (r"decoder/feature_projection0", lambda m: at("decoder.project", 0)),
    (r"decoder/decoder_conv(\d)_(depthwise|pointwise)", lambda m: at(f"decoder.refine.{m[1]}", ACTIVATED[m[2]])),
    (r"decoder/decoder_conv0/decoder_conv0_(\d)", lambda m: at(f"decoder.refine.{int(m[1]) - 1}", 0)),
]


def at(chain: str, position: int) -> Layers:
    """The convolution at `position` of the nn.Sequential named `chain`, and the batch norm after it."""
    return f"{chain}.{position}", f"{chain}.{position + 1}"


def xception_block(match: re.Match) -> str:
    """Our name of the block that (flow, block, unit) name."""
    flow, block, unit = match[1], int(match[2]), int(match[3])
    return {"entry": f"backbone.entry.{block - 1}", "middle": f"backbone.middle.{unit - 1}"}.get(flow, "backbone.exit")


def mobilenet_layers(block: int, layer: str) -> Layers:
    """torchvision's block: nn.Sequential for expand (not in block 0) and for depthwise, then project and its norm."""
    position = ("expand", "depthwise", "project").index(layer) - (block == 0)
    chain = f"backbone.features.{block + 1}.conv"
    return at(chain, position) if layer == "project" else at(f"{chain}.{position}", 0)


def tensorflow_name(name: str) -> str:
    """Our name of a TensorFlow variable; `name` itself if no rule covers it."""
    if name in LOGITS:
        return f"decoder.classifier.{LEAVES[name.rpartition('/')[2]]}"
    match = re.fullmatch(r"(.+?)/(weights|depthwise_weights|BatchNorm/\w+)", name)
    for pattern, layers in SCOPES if match and match[2] in LEAVES else ():
        if scope := re.fullmatch(pattern, match[1]):
            conv, norm = layers(scope)
            return f"{norm if match[2].startswith('BatchNorm/') else conv}.{LEAVES[match[2]]}"
    return name
