"""Memory and time to label a large image in windows and in one pass; with --checkpoint, how far their labels differ.

    python -m benchmarks.large_images [--networks mobilenet resnet] [--classes 21 150] [--size 6000 8000]
    python -m benchmarks.large_images --checkpoint model_best.pth.tar --image photo.jpg [--enlarge 4]

Each row of the first form is predict.py in a fresh process, from a JPEG file to its three PNG files, with random
weights; memory is the largest of the process, libraries included. The second form compares --protocol auto with whole:
the share of labels that differ, near the pixels that windows share (within 32) and elsewhere, and how often the class
changes from one of those pixels to the next, against whole.
"""

import argparse
import contextlib
import functools
import io
import itertools
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from modeling import BACKBONES, Architecture
from utils.errors import UserError
from utils.flags import Parser, answer_early, positive_int, run_command

NEAR = 32  # pixels


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="benchmarks.large_images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", choices=BACKBONES, nargs="+", default=["mobilenet"])
    parser.add_argument("--classes", type=positive_int, nargs="+", default=[21], metavar="K")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[2000, 3000], metavar=("H", "W"))
    parser.add_argument("--protocols", choices=("auto", "whole"), nargs="+", default=["auto", "whole"])
    parser.add_argument("--checkpoint", metavar="FILE", help="compare the labels of its network on --image")
    parser.add_argument("--image", metavar="FILE")
    parser.add_argument("--enlarge", type=positive_int, default=1, metavar="TIMES", help="of --image")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
import torch
from PIL import Image

import predict
from benchmarks.cases import TITLES
from modeling.inputs import to_rgb_image
from modeling.pretrained.loaded_model import load_model
from modeling.segmenter import Segmenter
from utils.large_images import Span, window_grid
from utils.palettes import voc_palette


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.checkpoint and not args.image:
        raise UserError("--checkpoint labels an image: give --image")
    return compare(args) if args.checkpoint else measure(args)


def measure(args: argparse.Namespace) -> int:
    threads = torch.get_num_threads()
    print(f"{args.size[0]}x{args.size[1]}, CPU, {threads} threads")
    print(f"{'network':<14} {'classes':>7} {'protocol':>8} {'seconds':>8} {'GiB':>6}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photo(folder / "photo.jpg", *args.size)
        for network, num_classes in itertools.product(args.networks, args.classes):
            write_network(folder / "network.pth", network, num_classes)
            rows = []
            for protocol in args.protocols:
                seconds, memory = fresh(functools.partial(label, folder, protocol, threads))
                title = TITLES.get(network, network)
                print(f"{title:<14} {num_classes:>7} {protocol:>8} {seconds:>8.1f} {memory:>6.2f}", flush=True)
                rows.append((seconds, memory))
            if len(rows) == 2:
                seconds, memory = (first / last for first, last in zip(*rows, strict=True))
                print(f"ratio {seconds:.2f} of the seconds, {memory:.2f} of the memory")
    return 0


def write_photo(path: Path, height: int, width: int) -> None:
    """Smooth random colors, as a JPEG file."""
    noise = np.random.default_rng(0).integers(0, 256, (max(2, height // 50), max(2, width // 50), 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def write_network(path: Path, backbone: str, num_classes: int) -> None:
    architecture = Architecture(backbone=backbone, num_classes=num_classes)
    model = architecture.build()
    content = {"state_dict": model.state_dict(), "config": architecture.to_config()} | model.preprocessing
    names = [f"class {number}" for number in range(num_classes)]
    torch.save(content | {"classes": names, "palette": voc_palette(num_classes)}, path)


def fresh(function: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """The result of `function` in a new Python process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function)


def label(folder: Path, protocol: str, threads: int) -> tuple[float, float]:
    """Seconds and GiB of predict.py for the image in `folder`, with the network there."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    flags = ["--checkpoint", str(folder / "network.pth"), str(folder / "photo.jpg"), "--out", str(folder / "out")]
    flags += ["--scores", "--protocol", protocol, "--device", "cpu", "--workers", "0"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = predict.main(flags)
    if status:
        raise RuntimeError(f"predict.py ended with status {status}")
    return time.perf_counter() - start, peak_memory()


def peak_memory() -> float:
    """Of this process, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage, which on Linux counts the process that this one was started from
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # bytes on macOS


def compare(args: argparse.Namespace) -> int:
    loaded = load_model(args.checkpoint)
    image = to_rgb_image(args.image)
    image = image.resize([side * args.enlarge for side in image.size], Image.Resampling.BICUBIC)
    whole, windows = (
        Segmenter(loaded, "cpu", whole=is_whole, scores=False).label(image).labels for is_whole in (True, False)
    )
    spans = window_grid(image.size, (1.0,))
    near = shared_pixels(spans[0], image.height, NEAR)[:, None] | shared_pixels(spans[1], image.width, NEAR)
    is_other = whole != windows
    print(f"{image.width}x{image.height}: {is_other.mean():.2%} of the labels differ, {is_other[near].mean():.2%} near "
          f"the pixels that windows share, {is_other[~near].mean():.2%} elsewhere")  # fmt: skip
    counts = [changes(labels, *spans) for labels in (windows, whole)]
    print(f"class changes there: {counts[0]}, {counts[1]} in one pass, ratio {counts[0] / max(1, counts[1]):.2f}")
    return 0


def shared_pixels(spans: Sequence[Span], side: int, margin: int) -> np.ndarray:
    """Where windows share pixels along a side, and `margin` pixels around: bool [side]."""
    mask = np.zeros(side, bool)
    for before, after in itertools.pairwise(spans):
        mask[max(0, after.begin - margin) : before.end + margin] = True
    return mask


def changes(labels: np.ndarray, rows: Sequence[Span], columns: Sequence[Span]) -> int:
    """How often the class changes across the pixels that rows share and those that columns share."""
    down = (labels[1:] != labels[:-1])[shared_pixels(rows, len(labels), 0)[1:]]
    across = (labels[:, 1:] != labels[:, :-1])[:, shared_pixels(columns, labels.shape[1], 0)[1:]]
    return int(down.sum() + across.sum())


if __name__ == "__main__":
    sys.exit(main())
