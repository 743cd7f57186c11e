"""Memory of a training step, beside segmentation_models_pytorch where it is installed.

    python -m benchmarks.memory [--networks mobilenet resnet] [--size 513] [--batch-size 4 2] [--steps 3]

Each row is a fresh process that imports the libraries, builds the network and its optimizer as benchmarks.train_step
does, and makes --steps steps. MiB: the largest resident memory above that after the imports; on a GPU the largest
allocation. Weights and momentum count, which one of the two allocates before the first step and the other in it. The
ratio is to ours.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.encoders import add_case_flags
from utils.flags import Parser, answer_early, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_case_flags(parser, size=513, batch_sizes=[4, 2])
    parser.add_argument("--steps", type=positive_int, default=3)
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)  # what the fresh process measures
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch

from benchmarks.cases import TITLES
from benchmarks.peers import PEERS
from benchmarks.train_step import OURS, batch_sizes, contestants, make_stepper
from utils.distributed.device import select_device
from utils.errors import RunFailed
from utils.memory import resident


def run(args: argparse.Namespace) -> int:
    if args.one:
        print(json.dumps(peak(args)))
        return 0
    print(f"{args.size}x{args.size}, {args.device}, amp {args.amp}")
    print(f"{'MiB':>8} {'ratio':>6}  network, batch")
    for network, batch_size in zip(args.networks, batch_sizes(args), strict=True):
        peaks = {name: in_fresh_process(args, name, network, batch_size) for name in contestants()}
        for name, mebibytes in peaks.items():
            print(f"{mebibytes:>8.0f} {peaks[OURS] / mebibytes:>6.2f}  {TITLES[network]}, {batch_size}, {name}")
    return 0


def in_fresh_process(args: argparse.Namespace, name: str, network: str, batch_size: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "--one", name, "--networks", network]
    command += ["--batch-size", str(batch_size), "--size", str(args.size), "--device", args.device]
    command += ["--amp", args.amp, "--steps", str(args.steps), *(["--compile"] if args.compile else [])]
    process = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    if process.returncode:
        raise RunFailed(f"{name} with {network} failed: {process.stderr.strip()}")
    return json.loads(process.stdout.splitlines()[-1])


def peak(args: argparse.Namespace) -> float:
    """MiB of building `args.one` and of its steps, above what there was before."""
    if args.one != OURS:
        import_module(PEERS["smp"].module)
    device, before = select_device(args.device), resident("VmRSS")
    stepper = make_stepper(args.one, args.networks[0], args.size, args.batch_size[0], args)
    for _ in range(args.steps):
        stepper.step()
    bytes_above = torch.cuda.max_memory_allocated() if device.type == "cuda" else resident("VmHWM") - before
    return bytes_above / 2**20


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
