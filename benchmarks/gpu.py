"""The tests that need a GPU, and the speed of training and scoring on one device, as Markdown.

    python -m benchmarks.gpu > gpu.md
    python -m benchmarks.gpu --device cpu --networks mobilenet --size 129 --batch-size 4 --steps 3

Rates are those of `Trainer.train_one_epoch` and of `utils.scoring.loop.score`, with random weights: the median of
`--repeats` epochs of `--steps` steps, after one epoch as a warm-up. An epoch of scoring has as many images. If `resnet`
is among the networks, a plain loop trains ResNet-101 of segmentation_models_pytorch (if installed) and torchvision.
A row that may not end within `--minutes` is skipped. Exit status 1 after a failed test or row; out of memory is a
result.
"""

import argparse
import importlib.metadata
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from modeling import BACKBONES
from utils.constants import DEVICES
from utils.flags import answer_early, non_negative_int, positive, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", choices=DEVICES, default="auto")
    add("--networks", choices=BACKBONES, nargs="+", default=["resnet", "resnet50", "xception", "mobilenet"])
    add("--size", type=positive_int, default=513, help="side of a training crop")
    add("--batch-size", type=positive_int, default=16)
    add("--steps", type=positive_int, default=20)
    add("--repeats", type=positive_int, default=3)
    add("--workers", type=non_negative_int, default=8)
    add("--minutes", type=positive, default=20.0)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch

from benchmarks.cases import COLUMNS, TITLES, Case, Rates, compiled_cases, eager_cases, ratios
from benchmarks.peers import PEERS, installed_peers
from benchmarks.rates import Measured, MemoryLoader, random_batch, scoring_rate, training_rate
from benchmarks.report import Report
from benchmarks.waiting import (
    Waiting,
    scoring_loader,
    training_loader,
    waiting_in_training,
    waiting_without_training,
    write_files,
)
from dataloaders import start_workers
from utils.distributed.device import describe_device, resolve_amp, select_device
from utils.run.environment import describe_environment

VOC_SIZES = ((375, 500), (500, 375), (333, 500))  # height, width: frequent ones


def main(argv: Sequence[str] | None = None) -> int:
    flags = make_parser().parse_args(argv)
    return run_command(lambda: benchmark(flags))


def benchmark(flags: argparse.Namespace) -> int:
    device, report = select_device(flags.device), Report(flags.minutes)
    describe(report, flags, device)
    if device.type == "cuda":
        report.tests()
    rates = measure_training(report, list(eager_cases(flags.networks)), flags, device)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "voc")
        write_files(files)
        measure_scoring(report, files, flags, device)
        measure_waiting(report, files, rates, flags, device)
    rates |= measure_training(report, compiled_cases(flags.networks), flags, device)
    report.items("Ratios of images/s", [f"{name}: {ratio:.2f}" for name, ratio in ratios(rates, flags.networks)])
    report.items(f"Skipped, since {flags.minutes:g} minutes may not suffice", report.skipped)
    report.items("Failed", report.failed)
    return 1 if report.failed else 0


def describe(report: Report, flags: argparse.Namespace, device: torch.device) -> None:
    environment = describe_environment()
    versions = environment["versions"]
    if "smp" in installed_peers():
        versions["segmentation_models_pytorch"] = importlib.metadata.version("segmentation_models_pytorch")
    if device.type == "cuda":
        versions |= {"CUDA": torch.version.cuda, "cuDNN": str(torch.backends.cudnn.version())}
    report.line(f"# Speed on {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}\n")
    report.line(f"- default precision: {describe_device(device, resolve_amp('auto', device))}")
    report.line(f"- {', '.join(f'{name} {version}' for name, version in versions.items())}")
    report.line(f"- {os.cpu_count()} CPU cores, commit {environment['commit']}")
    report.line(
        f"- crop {flags.size}, batch {flags.batch_size}, median of {flags.repeats} epochs of {flags.steps} steps"
    )


def result_cells(measured: Measured, batch_size: int) -> list[str]:
    milliseconds = 1000 * batch_size / measured.images_per_second
    gib = "" if measured.gib is None else f"{measured.gib:.2f}"
    return [f"{measured.images_per_second:.1f}", f"{milliseconds:.1f}", gib]


def measure_training(report: Report, cases: Sequence[Case], flags: argparse.Namespace, device: torch.device) -> Rates:
    kind = "compiled" if cases[0].compile else "eager"
    title = "Training with --compile" if cases[0].compile else "Training"
    report.table(title, [*COLUMNS, "size", "images/s", "ms a step", "GiB"])
    rates, how = {}, {"batch_size": flags.batch_size, "steps": flags.steps, "repeats": flags.repeats, "device": device}
    for case in cases:
        size = flags.size - (flags.size % PEERS[case.network].divisor if case.network in PEERS else 0)
        work = partial(training_rate, case, size=size, **how)
        show = partial(result_cells, batch_size=flags.batch_size)
        if measured := report.row([*case.cells, str(size)], work, show, kind=kind):
            rates[case] = measured.images_per_second
    return rates


def measure_scoring(report: Report, files: Path, flags: argparse.Namespace, device: torch.device) -> None:
    """Images of VOC's sizes, one a batch: from memory, and from JPEG files by workers."""
    report.table("Scoring", [*COLUMNS, "images", "images/s", "ms an image", "GiB"])
    num_images = flags.batch_size * flags.steps
    batches = [random_batch(1, *size, pin_memory=device.type == "cuda") for size in VOC_SIZES]
    memory = MemoryLoader(batches, num_images)
    jpeg = scoring_loader(files, num_images=num_images, workers=flags.workers, device=device)
    start_workers(jpeg)
    sources = [("memory", memory, {}), ("memory", memory, {"amp": "off"}), ("memory", memory, {"channels_last": False})]
    sources += [(f"JPEG, {flags.workers} workers", jpeg, {})]
    for network, (source, loader, how) in itertools.product(flags.networks, sources):
        case = Case(network=network, **how)
        work = partial(scoring_rate, case, loader, num_images=num_images, repeats=flags.repeats, device=device)
        report.row([*case.cells, source], work, partial(result_cells, batch_size=1))


def measure_waiting(report: Report, files: Path, rates: Rates, flags: argparse.Namespace, device: torch.device) -> None:
    """Train from JPEG files by workers; first without a network, which gives the speed of the workers alone."""
    columns = ["network", "ms a step waits for data", "ms a step", "images/s", "images/s from memory"]
    report.table(f"Training from JPEG files of 640x480 by {flags.workers} workers, bf16, channels-last", columns)
    loader = training_loader(
        files, num_steps=8 * flags.steps, size=flags.size, batch_size=flags.batch_size, workers=flags.workers,
        device=device,
    )  # fmt: skip
    start_workers(loader)
    show = partial(waiting_cells, batch_size=flags.batch_size)
    report.row(["none"], partial(waiting_without_training, loader), partial(show, from_memory=None))
    for network in flags.networks:
        case = Case(network=network)
        work = partial(waiting_in_training, case, loader, batch_size=flags.batch_size, device=device)
        report.row([TITLES.get(network, network)], work, partial(show, from_memory=rates.get(case)))


def waiting_cells(waiting: Waiting, *, batch_size: int, from_memory: float | None) -> list[str]:
    rate = f"{batch_size / waiting.step:.1f}"
    return [
        f"{1000 * waiting.wait:.1f}",
        f"{1000 * waiting.step:.1f}",
        rate,
        f"{from_memory:.1f}" if from_memory else "",
    ]


if __name__ == "__main__":
    sys.exit(main())
