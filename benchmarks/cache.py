"""Time of a training sample with and without --cache, compared with the time Pillow takes to decode it. One process.

    python -m benchmarks.cache [--data-root FOLDER_IN_VOC_LAYOUT] [--crop-size 513] [--count 40] [--repeats 5]
    python -m benchmarks.cache --cityscapes [--crop-size 769] [--count 6]

The images are those of benchmarks.input; with --cityscapes PNG files of 2048x1024, with the noise of a camera.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--cityscapes", action="store_true")
    parser.add_argument("--crop-size", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
import torch
from PIL import Image

from benchmarks.input import decode, milliseconds, write_voc
from dataloaders import RandomScaleCrop, SegmentationDataset, TrainDataset
from dataloaders.cache import open_cache
from dataloaders.cityscapes import IMAGE_END, LABEL_END, LABEL_IDS, Cityscapes
from dataloaders.demo import Demo
from dataloaders.voc import VOC

CITYSCAPES_SIZE = (2048, 1024)


def write_cityscapes(root: Path, count: int) -> None:
    """Write `count` images in Cityscapes' layout: images of the demo dataset, enlarged, with noise."""
    demo, random = Demo(Path(), "train"), np.random.default_rng(0)
    folders = [root / name / "train" / "town" for name in ("leftImg8bit", "gtFine")]
    for folder in folders:
        folder.mkdir(parents=True)
    for index in range(count):
        image, label = demo.read(index)
        pixels = np.asarray(image.resize(CITYSCAPES_SIZE, Image.Resampling.BICUBIC), np.float64)
        pixels += random.normal(0, 9, pixels.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folders[0] / f"{index}{IMAGE_END}")
        label = label.point([*LABEL_IDS, *range(len(LABEL_IDS), 256)])
        label.resize(CITYSCAPES_SIZE, Image.Resampling.NEAREST).save(folders[1] / f"{index}{LABEL_END}")


def measure(dataset: SegmentationDataset, crop_size: int, repeats: int, folder: Path) -> None:
    """Print a row for each way to get a sample: the time, and its ratio to decoding."""
    crop, indices = RandomScaleCrop((crop_size, crop_size), fill=(124, 116, 104)), range(len(dataset))
    read_from = {"no cache": dataset} | {f"--cache {name}": open_cache(str(place), [dataset])[0]
                                         for name, place in (("DIR", folder), ("ram", "ram"))}  # fmt: skip
    samples = {name: TrainDataset(source, crop, seed=1) for name, source in read_from.items()}
    works: dict[str, Callable] = {"Pillow decodes image and label": lambda _epoch, index: decode(dataset, index)}
    works |= {f"training sample, {name}": lambda *key, data=data: data[key] for name, data in samples.items()}
    first = {name: timed(work, 0, indices) for name, work in works.items()}  # fills the caches, and that of the system
    times = {name: [] for name in works}
    for epoch in range(1, repeats + 1):
        for name, work in works.items():  # in turns, so that other load on the machine affects all
            times[name].append(timed(work, epoch, indices))
    medians = {name: statistics.median(values) for name, values in times.items()}
    decoding = medians["Pillow decodes image and label"]
    print(
        f"{'':<32} {'first':>8} {'then':>8} {'ratio':>6}   ms an image, median of {repeats} passes over {len(dataset)}"
    )
    for name, value in medians.items():
        print(f"{name:<32} {first[name]:>8.2f} {value:>8.2f} {value / decoding:>6.2f}")


def timed(work: Callable, epoch: int, indices: range) -> float:
    """Milliseconds of `work(epoch, index)`, the mean over `indices`."""
    return milliseconds(lambda index: work(epoch, index), len(indices))


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)  # as in a loader's worker
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        if args.cityscapes:
            write_cityscapes(data, args.count or 6)
            dataset = Cityscapes(data, "train")
        else:
            if not args.data_root:
                write_voc(data, args.count or 40)
            dataset = VOC(args.data_root or data, "train")
        measure(dataset, args.crop_size or (769 if args.cityscapes else 513), args.repeats, Path(folder) / "cache")


if __name__ == "__main__":
    main()
