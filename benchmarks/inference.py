"""Time and memory to predict one image, at each scale alone, then at all scales with flips.

    python -m benchmarks.inference [--backbone xception] [--size 1024 2048] [--scales 0.5 0.75 1.0 1.25 1.5 1.75 2.0]

Memory is the peak of the process so far, libraries included; on a GPU, the peak that PyTorch allocated there. The
weights are random, with 19 classes.
"""

import argparse
import resource
import sys
import time
from collections.abc import Sequence

from modeling import BACKBONES, HEADS, Architecture
from utils.constants import DEVICES
from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="xception")
    parser.add_argument("--head", choices=HEADS, default="separable")
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0])
    parser.add_argument("--device", choices=DEVICES, default="auto")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch

from utils.distributed.device import select_device
from utils.inference import Predictor


def peak_memory(device: torch.device) -> float:
    """In GiB, since the start of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    device = select_device(args.device)
    architecture = Architecture(backbone=args.backbone, num_classes=19, head=args.head)
    model = architecture.build().to(device, memory_format=torch.channels_last)
    image = torch.randint(0, 256, (1, 3, *args.size), dtype=torch.uint8)
    print(
        f"{args.backbone}, {args.head} head, stride {architecture.output_stride}, "
        f"{args.size[0]}x{args.size[1]}, {device}"
    )
    print(f"{'scales':<40} {'seconds':>8} {'GiB':>6}")
    rows = [((scale,), False) for scale in args.scales] + [(tuple(args.scales), True)]
    seconds_at_one = None
    for scales, flip in rows:
        start = time.perf_counter()
        Predictor(model, device, scales=scales, flip=flip).labels(image).cpu()
        seconds = time.perf_counter() - start
        if scales == (1.0,) and not flip:
            seconds_at_one = seconds
        name = f"{' '.join(map(str, scales))}{' and flips' if flip else ''}"
        print(f"{name:<40} {seconds:>8.1f} {peak_memory(device):>6.2f}", flush=True)
    if seconds_at_one:
        print(f"ratio {seconds / seconds_at_one:.1f} of all to scale 1.0 alone")


if __name__ == "__main__":
    main()
