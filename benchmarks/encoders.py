"""Names of our backbones in segmentation_models_pytorch, and the flags of benchmarks beside it. No torch here."""

import argparse

from utils.constants import DEVICES, PRECISIONS
from utils.flags import positive_int

ENCODERS = {"mobilenet": "mobilenet_v2", "resnet": "resnet101", "resnet50": "resnet50"}


def add_case_flags(parser: argparse.ArgumentParser, *, size: int, batch_sizes: list[int]) -> None:
    add = parser.add_argument
    add("--networks", choices=ENCODERS, nargs="+", default=["mobilenet", "resnet"])
    add("--size", type=positive_int, default=size, help=f"of a side (default: {size})")
    add("--batch-size", type=positive_int, nargs="+", default=batch_sizes, help="one for each network, or one for all")
    add("--device", choices=DEVICES, default="cpu")
    add("--amp", choices=PRECISIONS, default="off")
    add("--compile", action="store_true", help="torch.compile the networks")
