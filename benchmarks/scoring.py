"""Time and memory to turn logits into labels and pixel counts, beside what torch's own functions take.

    python -m benchmarks.scoring [--size 513] [--classes 21] [--large 1024 2048] [--repeats 15]

Milliseconds are medians, all rows in turns in one process; "reading" is `logits.sum()`, and every ratio is to it. The
rows of torch use `interpolate`, `argmax` and `bincount`, those of SMP (segmentation_models_pytorch, if it is installed)
`argmax` and its `get_stats`. Logits are random, contiguous or in channels-last memory; a quarter of the size before the
upsampling. All must give the same counts. Memory is the peak of a new process above what it held with the coarse
logits, on Linux.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.flags import Parser, answer_early, positive_int


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="benchmarks.scoring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=positive_int, default=513, help="side of the image, 4 k + 1")
    parser.add_argument("--classes", type=positive_int, default=21)
    parser.add_argument("--large", type=positive_int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--large-classes", type=positive_int, default=19)
    parser.add_argument("--threads", type=positive_int, default=1)
    parser.add_argument("--repeats", type=positive_int, default=15)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.labels import scores_to_labels
from utils.memory import reset_peak, resident
from utils.scoring.metrics import ConfusionMatrix
from utils.strips import UpsampledMap

ORDERS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def upsample(coarse: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(coarse, size=tuple(size), mode="bilinear", align_corners=True)


def labels_in_strips(coarse: Tensor, size: Sequence[int]) -> Tensor:
    strips = UpsampledMap(coarse, tuple(size), tuple(size)).strips()
    return torch.cat([scores_to_labels(scores) for _, scores in strips], 1)


def our_counts(labels: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(labels, truth)
    return confusion.counts


def torch_counts(labels: Tensor, truth: Tensor, num_classes: int) -> Tensor:
    pairs = truth.long().clamp(max=num_classes) * num_classes + labels
    return torch.bincount(pairs.flatten(), minlength=(num_classes + 1) * num_classes).view(-1, num_classes)[:-1]


def smp_counts(labels: Tensor, truth: Tensor, num_classes: int) -> Tensor | None:
    """Correct pixels of each class, which it gives in place of a matrix; None without the library."""
    try:
        from segmentation_models_pytorch.metrics import get_stats
    except ImportError:
        return None
    how = {"mode": "multiclass", "ignore_index": 255, "num_classes": num_classes}
    return get_stats(labels, truth.long(), **how)[0].sum(0)


def cases(size: int, num_classes: int) -> dict[str, Callable[[], Tensor | None]]:
    """Name of the row -> work that gives counts, or None if it cannot be measured."""
    torch.manual_seed(0)
    coarse = torch.randn(1, num_classes, (size + 2) // 4 + 1, (size + 2) // 4 + 1)
    full, truth = (size, size), torch.randint(0, num_classes, (1, size, size), dtype=torch.uint8)
    truth[:, : size // 10] = 255
    logits, found = upsample(coarse, full), {}
    found["reading the logits"] = lambda: logits.sum()
    for name, order in ORDERS.items():
        given = (logits.contiguous(memory_format=order), coarse.contiguous(memory_format=order), truth)
        found |= {f"{row}, {name}": work for row, work in rows_of(*given).items()}
    return found


def rows_of(logits: Tensor, coarse: Tensor, truth: Tensor) -> dict[str, Callable[[], Tensor | None]]:
    num_classes, full = logits.shape[1], logits.shape[2:]
    return {
        "labels, torch": lambda: logits.argmax(1),
        "labels": lambda: scores_to_labels(logits),
        "labels + matrix, torch": lambda: torch_counts(logits.argmax(1), truth, num_classes),
        "labels + matrix, SMP": lambda: smp_counts(logits.argmax(1), truth, num_classes),
        "labels + matrix": lambda: our_counts(scores_to_labels(logits), truth, num_classes),
        "upsampling + labels + matrix, torch": lambda: torch_counts(
            upsample(coarse, full).argmax(1), truth, num_classes
        ),
        "upsampling + labels + matrix": lambda: our_counts(labels_in_strips(coarse, full), truth, num_classes),
    }


def measure(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Milliseconds by row, the rows in turns; the first round allocates memory."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(row[1:]) for name, row in times.items()}


def peak_bytes(in_strips: bool, size: Sequence[int], num_classes: int) -> int:
    """Of labels and counts of an image of `size`, above what the process held before, in a new process."""
    torch.set_num_threads(1)
    coarse = torch.randn(1, num_classes, *((side + 2) // 4 + 1 for side in size))
    truth = torch.zeros(1, *size, dtype=torch.uint8)
    our_counts(labels_in_strips(coarse[..., :9, :9], (33, 33)), truth[:, :33, :33], num_classes)  # loads the library
    reset_peak()
    before = resident("VmHWM")
    if in_strips:
        our_counts(labels_in_strips(coarse, size), truth, num_classes)
    else:
        torch_counts(upsample(coarse, size).argmax(1), truth, num_classes)
    return resident("VmHWM") - before


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        report_times(args.size, args.classes, args.repeats)
    finally:
        torch.set_num_threads(before)
    report_memory([side // 4 * 4 + 1 for side in args.large], args.large_classes)


def report_memory(size: Sequence[int], num_classes: int) -> None:
    if not Path("/proc/self/clear_refs").exists():
        return
    print(f"\n{size[0]}x{size[1]}, {num_classes} classes: upsampling + labels + matrix, MiB")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for name, in_strips in (("in strips", True), ("torch", False)):
            used = pool.apply(peak_bytes, (in_strips, size, num_classes))
            print(f"{name:<50} {used / 2**20:>8.0f}")


def report_times(size: int, num_classes: int, repeats: int) -> None:
    works = cases(size, num_classes)
    counts = {name: result for name, work in works.items() if (result := work()) is not None}
    matrices = [result for name, result in counts.items() if "matrix" in name and "SMP" not in name]
    # torch upsamples channels-last memory with another rounding, which moves the labels of near ties
    assert all((matrices[0] - other).abs().sum() <= 1e-4 * size**2 for other in matrices[1:])
    found = measure({name: works[name] for name in counts}, repeats)
    reading = found["reading the logits"]
    print(f"{num_classes}x{size}x{size}, {torch.get_num_threads()} threads, CPU")
    print(f"{'':<50} {'ms':>8} {'ratio':>6}")
    for name, value in found.items():
        print(f"{name:<50} {value:>8.2f} {value / reading:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
