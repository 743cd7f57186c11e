"""Time of a training sample, compared with the time Pillow takes to decode its image and label. One process.

    python -m benchmarks.input [--data-root FOLDER_IN_VOC_LAYOUT] [--crop-size 513] [--repeats 5] [--workers 1 2]
    python -m benchmarks.input --dataset cityscapes --data-root FOLDER --crop-size 769

Without --data-root it writes images of the demo dataset, enlarged to 640x480, as JPEG and palette PNG to a temporary
folder. `--workers` adds whole epochs of a loader with batches of 8.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", default="pascal", help="dataset of --data-root, with label files (default: pascal)"
    )
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--crop-size", type=int, default=513)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="numbers of workers of loaders")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
import torch
from PIL import Image

from dataloaders import RandomScaleCrop, SegmentationDataset, TrainDataset, build_dataset
from dataloaders.demo import Demo
from dataloaders.loaders import train_loader
from utils.palettes import voc_palette
from utils.plain_files import jpeg_decoder

SIZE, FILL = (640, 480), (124, 116, 104)


def write_voc(root: Path, count: int) -> None:
    """Write `count` images in VOC's layout: 640x480 with noise, JPEG at quality 90, labels with VOC's palette."""
    demo, random = Demo(Path(), "train"), np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        image, label = demo.read(index)
        pixels = np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC), np.float64)
        pixels += random.normal(0, 8, pixels.shape)  # noise, as in photographs: most of a JPEG's bytes encode it
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"JPEGImages/{index}.jpg", quality=90)
        label = label.resize(SIZE, Image.Resampling.NEAREST)
        label.putpalette(np.array(voc_palette(256), np.uint8).tobytes())
        label.save(root / f"SegmentationClass/{index}.png")
    ids = "\n".join(map(str, range(count)))
    (root / "ImageSets/Segmentation/train.txt").write_text(ids + "\n")


def decode(dataset: SegmentationDataset, index: int) -> None:
    for path in (dataset.image_path(index), dataset.label_path(index)):
        with Image.open(path) as image:
            image.load()


def milliseconds(work: Callable[[int], object], count: int) -> float:
    """The mean time of `work(index)` for the indices below `count`."""
    start = time.perf_counter()
    for index in range(count):
        work(index)
    return 1000 * (time.perf_counter() - start) / count


def measure(dataset: SegmentationDataset, crop_size: int, repeats: int) -> None:
    crop = RandomScaleCrop((crop_size, crop_size), fill=FILL)
    samples = TrainDataset(dataset, crop, seed=1)
    rows = {
        "Pillow decodes image and label": lambda index, _: decode(dataset, index),
        "decoding for a sample": lambda index, _: dataset.read_pixels(index),
        f"training sample, crop {crop_size}": lambda index, epoch: samples[epoch, index],
    }
    times = {name: [] for name in rows}
    for repeat in range(repeats + 1):
        for name, work in rows.items():  # in turns, so that other load on the machine affects all
            time_of_one = milliseconds(lambda index, work=work, epoch=repeat: work(index, epoch), len(dataset))
            if repeat:  # the first pass warms the file cache
                times[name].append(time_of_one)
    decoder = "simplejpeg" if jpeg_decoder() else "Pillow"
    print(
        f"{'':<40} {'ms an image':>12}   median of {repeats} passes over {len(dataset)} images; JPEG files: {decoder}"
    )
    decode_time, _, sample_time = (print_row(name, statistics.median(values)) for name, values in times.items())
    print(f"ratio {sample_time / decode_time:.2f}")


def measure_loader(dataset: SegmentationDataset, crop_size: int, repeats: int, workers: int) -> None:
    loader = train_loader(
        dataset, crop_size=(crop_size, crop_size), base_size=None, mean=[value / 255 for value in FILL], seed=1,
        batch_size=min(8, len(dataset)), accumulate=1, rank=0, world_size=1, workers=workers, pin_memory=False,
        skip_broken=False,
    )  # fmt: skip
    sampler, times = loader.batch_sampler, []
    for epoch in range(repeats + 1):
        sampler.set_position(epoch, 0)
        start = time.perf_counter()
        num_images = sum(len(batch["id"]) for batch in loader)
        if epoch:  # the first epoch starts the workers
            times.append(1000 * (time.perf_counter() - start) / num_images)
    print_row(f"loader with {workers} workers", statistics.median(times))


def print_row(name: str, time_of_one: float) -> float:
    print(f"{name:<40} {time_of_one:>12.2f}")
    return time_of_one


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)  # as in a loader's worker
    with tempfile.TemporaryDirectory() as folder:
        if not args.data_root:
            write_voc(Path(folder), 40)
        dataset = build_dataset(args.dataset, "train", root=str(args.data_root or folder))
        measure(dataset, args.crop_size, args.repeats)
        for workers in args.workers:
            measure_loader(dataset, args.crop_size, args.repeats, workers)


if __name__ == "__main__":
    main()
