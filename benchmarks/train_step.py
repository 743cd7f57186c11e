"""Time of a training step, beside segmentation_models_pytorch where it is installed, also for each multiply-accumulate.

    python -m benchmarks.train_step [--networks mobilenet resnet] [--size 257] [--batch-size 8 4] [--repeats 9]

A step is that of train.py: uint8 images in memory, normalization, forward, cross-entropy, backward, SGD. The other
library's network (DeepLabV3Plus, whose ASPP and decoder are separable too) makes it by a plain loop with fused SGD. Its
sides are the multiple of 16 below --size. All take turns, so that a load from outside slows all of them. Milliseconds
are medians; the ratio is of the times for a multiply-accumulate, ours first.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.encoders import ENCODERS, add_case_flags
from utils.errors import UserError
from utils.flags import Parser, answer_early, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="benchmarks.train_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_case_flags(parser, size=257, batch_sizes=[8, 4])
    parser.add_argument("--repeats", type=positive_int, default=9)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch
from torch import nn

from benchmarks.cases import NUM_CLASSES, TITLES, Case
from benchmarks.peers import build_smp, installed_peers, plain_epoch
from benchmarks.rates import LEARNING_RATE, MemoryLoader, make_trainer, random_batch
from modeling.cost import count_macs
from utils.distributed.device import select_device, tune_convolutions
from utils.memory import keep_freed_memory

FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
OURS = "ours"
CONTESTANTS = (OURS, *(f"SMP, {name}" for name in FORMATS))


class Stepper(NamedTuple):
    step: Callable[[], object]
    macs: int  # multiply-accumulates of a forward pass of one image


def make_stepper(name: str, network: str, size: int, batch_size: int, args: argparse.Namespace) -> Stepper:
    """`name`: of CONTESTANTS. `args`: the flags of `add_case_flags`."""
    device = select_device(args.device)
    tune_convolutions(True)
    if name == OURS:
        if device.type == "cpu":
            keep_freed_memory()  # as train.py does
        batch = random_batch(batch_size, size, size, pin_memory=device.type == "cuda")
        case = Case(network=network, amp=args.amp, compile=args.compile)
        folder = tempfile.TemporaryDirectory()
        trainer = make_trainer(case, MemoryLoader([batch], 1), Path(folder.name), batch_size=batch_size, device=device)
        trainer.network.train()

        def step(_folder: object = folder) -> None:  # the folder lives as long as the function
            trainer.train_step([batch])

        return Stepper(step, macs_of(case.build, size))
    size -= size % 16
    batch = random_batch(batch_size, size, size, pin_memory=device.type == "cuda")
    step = plain_epoch(
        build_smp(NUM_CLASSES, ENCODERS[network]), [batch], lr=LEARNING_RATE, amp=args.amp,
        memory_format=FORMATS[name.removeprefix("SMP, ")], is_compiled=args.compile, device=device,
    )  # fmt: skip
    return Stepper(step, macs_of(lambda: build_smp(NUM_CLASSES, ENCODERS[network]), size))


def macs_of(build: Callable[[], nn.Module], size: int) -> int:
    with torch.device("meta"):
        return count_macs(build(), (size, size))


def contestants() -> Sequence[str]:
    return CONTESTANTS if "smp" in installed_peers() else [OURS]


def batch_sizes(args: argparse.Namespace) -> list[int]:
    """One for each network. Raises UserError if their number is another one."""
    if len(args.batch_size) not in (1, len(args.networks)):
        raise UserError(f"{len(args.batch_size)} batch sizes for {len(args.networks)} networks: give one, or one each")
    return args.batch_size * (len(args.networks) if len(args.batch_size) == 1 else 1)


def run(args: argparse.Namespace) -> int:
    device = select_device(args.device)
    synchronize = torch.get_device_module(device).synchronize
    print(f"{args.size}x{args.size}, {device.type}, {torch.get_num_threads()} threads, amp {args.amp}")
    print(f"{'ms':>8} {'GMAC':>6} {'ms/GMAC':>8} {'ratio':>6}  network, batch")
    for network, batch_size in zip(args.networks, batch_sizes(args), strict=True):
        steppers = {name: make_stepper(name, network, args.size, batch_size, args) for name in contestants()}
        seconds = {name: [] for name in steppers}
        for _ in range(args.repeats + 2):
            for name, stepper in steppers.items():
                start = time.perf_counter()
                stepper.step()
                synchronize()
                seconds[name].append(time.perf_counter() - start)
        costs = {}
        for name, stepper in steppers.items():
            milliseconds = 1000 * statistics.median(seconds[name][2:])  # the first two warm up
            gmac = stepper.macs * batch_size / 1e9
            costs[name] = milliseconds / gmac
            print(
                f"{milliseconds:>8.0f} {stepper.macs / 1e9:>6.2f} {costs[name]:>8.1f} {costs[OURS] / costs[name]:>6.2f}"
                f"  {TITLES[network]}, {batch_size}, {name}",
                flush=True,
            )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
