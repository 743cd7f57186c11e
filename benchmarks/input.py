"""Time of a training sample, compared with the time Pillow takes to decode its image and label. One process.

    python -m benchmarks.input [--data-root FOLDER_IN_VOC_LAYOUT] [--crop-size 513] [--repeats 5]

Without --data-root it writes images of the demo dataset, enlarged to 640x480, as JPEG and palette PNG to a temporary
folder.
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
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--crop-size", type=int, default=513)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
import torch
from PIL import Image

from dataloaders import RandomScaleCrop, SegmentationDataset, TrainDataset
from dataloaders.demo import Demo
from dataloaders.voc import VOC
from utils.palettes import voc_palette

SIZE = (640, 480)


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
    crop = RandomScaleCrop((crop_size, crop_size), fill=(124, 116, 104))
    samples = TrainDataset(dataset, crop, seed=1)
    count, decode_times, sample_times = len(dataset), [], []
    for repeat in range(repeats + 1):
        # In turns, so that other load on the machine affects both
        decode_time = milliseconds(lambda index: decode(dataset, index), count)
        sample_time = milliseconds(lambda index, epoch=repeat: samples[epoch, index], count)
        if repeat:  # the first pass warms the file cache
            decode_times.append(decode_time)
            sample_times.append(sample_time)
    decode_time, sample_time = statistics.median(decode_times), statistics.median(sample_times)
    print(f"{'':<40} {'ms an image':>12}   median of {repeats} passes over {count} images")
    print(f"{'Pillow decodes image and label':<40} {decode_time:>12.2f}")
    print(f"{f'training sample, crop {crop_size}':<40} {sample_time:>12.2f}")
    print(f"ratio {sample_time / decode_time:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    torch.set_num_threads(1)  # as in a loader's worker
    if args.data_root:
        measure(VOC(args.data_root, "train"), args.crop_size, args.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_voc(Path(folder), 40)
        measure(VOC(Path(folder), "train"), args.crop_size, args.repeats)


if __name__ == "__main__":
    main()
