"""Weights and images by rule, so that no weight file is needed to compare two implementations.

A manifest maps each entry's name to its shape. The values of an entry depend on its name and shape alone: one uniform
draw in [0, 1) an element, in C order, from numpy's PCG64 seeded with the CRC-32 of the name.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SHIFTS = ("moving_mean", "beta", "biases", "running_mean", "bias")
VARIANCES = ("moving_variance", "running_var")


def read_manifests() -> dict[str, dict[str, list[int]]]:
    """Network -> entry's name -> shape, with TensorFlow's own names and layouts where the network is TensorFlow's."""
    return json.loads(gzip.decompress(Path(__file__).with_name("manifests.json.gz").read_bytes()))


def fill(manifest: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Values for every entry, float32 (PyTorch's `num_batches_tracked`: int64)."""
    return {name: fill_entry(name, tuple(shape)) for name, shape in manifest.items()}


def fill_entry(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels have a standard deviation of sqrt(1 / fan-in), batch norm is near the identity, biases are small."""
    leaf = name.replace("/", ".").rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.array(0)
    draws = generator(zlib.crc32(name.encode())).random(shape)
    if leaf in VARIANCES:
        values = 0.5 + draws  # [0.5, 1.5)
    elif leaf in SHIFTS:
        values = (draws - 0.5) * 0.2  # [-0.1, 0.1)
    elif len(shape) > 1:
        values = (draws * 2 - 1) * np.sqrt(3 / fan_in(leaf, shape))
    else:
        values = 0.6 + 0.6 * draws  # [0.6, 1.2), batch norm's scale
    return values.astype(np.float32)


def fan_in(leaf: str, shape: tuple[int, ...]) -> int:
    """Inputs of one output of a convolution: PyTorch's [out, in, kH, kW], TensorFlow's [kH, kW, in, out]."""
    if leaf == "depthwise_weights":  # [kH, kW, channels, 1]
        return shape[0] * shape[1]
    if leaf == "weights":
        return shape[0] * shape[1] * shape[2]
    return int(np.prod(shape[1:]))


def make_image(height: int, width: int, seed: int) -> Tensor:
    """Smooth structure and noise, float32 [1, 3, height, width], as after normalization."""
    random = generator(seed)
    coarse = torch.from_numpy(random.random((1, 3, height // 8 + 2, width // 8 + 2)) * 4 - 2).float()
    smooth = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    return smooth + 0.1 * torch.from_numpy(random.random((1, 3, height, width)) - 0.5).float()


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))
