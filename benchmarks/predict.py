"""Time to label one image: a checkpoint in PyTorch and its exports in onnxruntime, with one thread and with all.

    python -m benchmarks.predict --checkpoint model_best.pth.tar --graphs model.onnx [--size 360 480]

Every row is measured in this run, the networks in turns, so that a load from outside slows all of them. Milliseconds
are the median of --repeats; the ratio is to the checkpoint with as many threads.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

from utils.flags import Parser, answer_early, positive_int


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="benchmarks.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", metavar="FILE", required=True)
    parser.add_argument("--graphs", metavar="FILE", nargs="+", required=True, help="files of export.py")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[360, 480], metavar=("H", "W"))
    parser.add_argument("--repeats", type=positive_int, default=9)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch

from modeling.pretrained.loaded_model import load_model
from utils.inference import Predictor


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8)
    print(f"{args.size[0]}x{args.size[1]}, CPU")
    print(f"{'threads':>7} {'ms':>8} {'ratio':>6}  file")
    for threads in sorted({1, torch.get_num_threads()}):
        milliseconds = measure([args.checkpoint, *args.graphs], image, threads=threads, repeats=args.repeats)
        for name, value in milliseconds.items():
            ratio = value / milliseconds[args.checkpoint]
            print(f"{threads:>7} {value:>8.1f} {ratio:>6.2f}  {name}", flush=True)


def measure(names: Sequence[str], image: torch.Tensor, *, threads: int, repeats: int) -> dict[str, float]:
    """Milliseconds for `image`, uint8 [1, 3, H, W], by name of the file."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        predictors = {name: load_model(name).predictor(torch.device("cpu")) for name in names}
        rounds = [[timed(predictor, image) for predictor in predictors.values()] for _ in range(repeats + 1)]
    finally:
        torch.set_num_threads(before)
    medians = map(statistics.median, zip(*rounds[1:], strict=True))  # the first round allocates memory
    return {name: 1000 * seconds for name, seconds in zip(names, medians, strict=True)}


def timed(predictor: Predictor, image: torch.Tensor) -> float:
    """Seconds from the image to its labels."""
    start = time.perf_counter()
    predictor.labels(image)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
