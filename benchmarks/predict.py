"""Time from an image to its labels, with one thread and with all: networks of this project and of
segmentation_models_pytorch, or a checkpoint and its exports in onnxruntime.

    python -m benchmarks.predict [--networks mobilenet resnet] [--size 375 500]
    python -m benchmarks.predict --checkpoint model_best.pth.tar --graphs model.onnx [--size 360 480]

The image is uint8 in memory. The networks of segmentation_models_pytorch, where it is installed, get the same
normalization, are padded to a multiple of 16, and their labels are `argmax(1)`. Every row is measured in this run, the
networks in turns, so that a load from outside slows all of them. Milliseconds are the median of --repeats; the ratio is
to the first row of the network with as many threads.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks.encoders import ENCODERS
from utils.errors import UserError
from utils.flags import Parser, answer_early, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="benchmarks.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", choices=ENCODERS, nargs="+", default=["mobilenet", "resnet"])
    parser.add_argument("--checkpoint", metavar="FILE", help="in the place of --networks")
    parser.add_argument("--graphs", metavar="FILE", nargs="+", default=[], help="files of export.py, of --checkpoint")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[375, 500], metavar=("H", "W"))
    parser.add_argument("--repeats", type=positive_int, default=9)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.cases import TITLES
from benchmarks.peers import build_smp, installed_peers
from modeling import Architecture
from modeling.deeplab import IMAGENET_MEAN, IMAGENET_STD
from modeling.pretrained.loaded_model import load_model
from utils.inference import Normalize, Predictor
from utils.palettes import VOC_CLASSES

CPU = torch.device("cpu")
Labeler = Callable[[Tensor], Tensor]  # uint8 [1, 3, H, W] -> labels [1, H, W]


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    if args.graphs and not args.checkpoint:
        raise UserError("--graphs are compared with their checkpoint: give --checkpoint")
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8)
    print(f"{args.size[0]}x{args.size[1]}, CPU")
    print(f"{'threads':>7} {'ms':>8} {'ratio':>6}  network")
    for threads in sorted({1, torch.get_num_threads()}):
        for build in [functools.partial(files, args)] if args.checkpoint else map(networks, args.networks):
            milliseconds = measure(build, image, threads=threads, repeats=args.repeats)
            first = next(iter(milliseconds.values()))
            for name, value in milliseconds.items():
                print(f"{threads:>7} {value:>8.1f} {value / first:>6.2f}  {name}", flush=True)
    return 0


def files(args: argparse.Namespace) -> dict[str, Labeler]:
    return {name: load_model(name).predictor(CPU).labels for name in (args.checkpoint, *args.graphs)}


def networks(name: str) -> Callable[[], dict[str, Labeler]]:
    """A function that builds the network `name` and its peers, with random weights, by title."""

    def build() -> dict[str, Labeler]:
        model = Architecture(backbone=name, num_classes=len(VOC_CLASSES)).build()
        found = {TITLES[name]: Predictor(model.to(memory_format=torch.channels_last), CPU).labels}
        if "smp" in installed_peers():
            for order in (torch.contiguous_format, torch.channels_last):
                peer = build_smp(len(VOC_CLASSES), ENCODERS[name]).eval().to(memory_format=order)
                title = "channels-last" if order == torch.channels_last else "contiguous"
                found[f"{TITLES[name]}, SMP, {title}"] = functools.partial(peer_labels, peer, order)
        return found

    return build


@torch.no_grad()
def peer_labels(model: nn.Module, order: torch.memory_format, image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    normalized = Normalize(IMAGENET_MEAN, IMAGENET_STD)(image)
    padded = F.pad(normalized, (0, -width % 16, 0, -height % 16)).contiguous(memory_format=order)
    return model(padded)[..., :height, :width].argmax(1)


def measure(
    build: Callable[[], Mapping[str, Labeler]], image: Tensor, *, threads: int, repeats: int
) -> dict[str, float]:
    """Milliseconds for `image`, uint8 [1, 3, H, W], by name."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        labelers = build()
        rounds = [[timed(label, image) for label in labelers.values()] for _ in range(repeats + 1)]
    finally:
        torch.set_num_threads(before)
    medians = map(statistics.median, zip(*rounds[1:], strict=True))  # the first round allocates memory
    return {name: 1000 * seconds for name, seconds in zip(labelers, medians, strict=True)}


def timed(label: Labeler, image: Tensor) -> float:
    """Seconds from the image to its labels."""
    start = time.perf_counter()
    label(image)
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
