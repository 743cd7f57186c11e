"""The cases that benchmarks.gpu measures, and the ratios between them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from benchmarks.peers import PEERS, installed_peers
from modeling import Architecture
from utils.palettes import VOC_CLASSES

NUM_CLASSES = len(VOC_CLASSES)
COLUMNS = ("network", "stride", "precision", "format")  # of `Case.cells`
TITLES = {"resnet": "ResNet-101", "resnet50": "ResNet-50", "xception": "Xception-65", "mobilenet": "MobileNetV2"}
TITLES |= {name: peer.title for name, peer in PEERS.items()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """How to compute. `network`: a name of BACKBONES or PEERS; `amp` and others: the flags of train.py."""

    network: str
    amp: str = "bf16"
    channels_last: bool = True
    compile: bool = False
    output_stride: int = 16
    head: str = "separable"

    @property
    def cells(self) -> list[str]:
        name = TITLES.get(self.network, self.network) + (", standard head" if self.head == "standard" else "")
        precision = "float32" if self.amp == "off" else self.amp
        return [name, str(self.output_stride), precision, "channels-last" if self.channels_last else "contiguous"]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def build(self) -> nn.Module:
        if self.network in PEERS:
            return PEERS[self.network].build(NUM_CLASSES)
        architecture = Architecture(
            backbone=self.network, num_classes=NUM_CLASSES, output_stride=self.output_stride, head=self.head
        )
        return architecture.build()


Rates = dict[Case, float]  # images per second


def eager_cases(networks: Sequence[str]) -> Iterator[Case]:
    for network, amp, channels_last in itertools.product(networks, ("bf16", "off"), (True, False)):
        yield Case(network=network, amp=amp, channels_last=channels_last)
    if "resnet" in networks:
        yield Case(network="resnet", output_stride=8, head="standard")  # to compare with torchvision's
        for peer, channels_last in itertools.product(installed_peers(), (True, False)):
            yield Case(network=peer, channels_last=channels_last, output_stride=PEERS[peer].output_stride)


def compiled_cases(networks: Sequence[str]) -> list[Case]:
    """Those of bf16 with --compile, the default memory format first, since time may end before the others."""
    cases = [replace(case, compile=True) for case in eager_cases(networks) if case.amp == "bf16"]
    return sorted(cases, key=lambda case: not case.channels_last)


def ratios(rates: Rates, networks: Sequence[str]) -> Iterator[tuple[str, float]]:
    """(what to what, ratio of the images/s of its fastest cases), for all that were measured."""
    for name, above, below in [*own_pairs(networks), *peer_pairs()]:
        values = fastest(rates, above), fastest(rates, below)
        if all(values):
            yield name, values[0] / values[1]


def own_pairs(networks: Sequence[str]) -> Iterator[tuple[str, dict, dict]]:
    for network in networks:
        own, name = {"network": network, "head": "separable"}, TITLES.get(network, network)
        bf16 = own | {"amp": "bf16", "compile": False}
        yield f"{name}, bf16 to float32", bf16, own | {"amp": "off"}
        formats = ({"channels_last": value} for value in (True, False))
        yield f"{name}, bf16, channels-last to contiguous", *(bf16 | each for each in formats)
        yield f"{name}, bf16, --compile to without", own | {"compile": True}, bf16


def peer_pairs() -> Iterator[tuple[str, dict, dict]]:
    for (peer, head), is_compiled in itertools.product(
        (("smp", "separable"), ("torchvision", "standard")), (False, True)
    ):
        how = {"amp": "bf16", "compile": is_compiled}
        name = f"ResNet-101, {head} head, stride {PEERS[peer].output_stride}, bf16{', --compile' * is_compiled}"
        yield f"{name}, to {TITLES[peer]}", how | {"network": "resnet", "head": head}, how | {"network": peer}


def fastest(rates: Rates, wanted: Mapping) -> float | None:
    """Among the cases with the fields `wanted`."""
    found = [rate for case, rate in rates.items() if all(getattr(case, key) == value for key, value in wanted.items())]
    return max(found, default=None)
