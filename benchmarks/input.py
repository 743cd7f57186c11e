"""What a training sample costs, against what Pillow needs to decode its image and label alone. One process.

    python -m benchmarks.input [--data-root FOLDER_IN_VOC_LAYOUT] [--crop-size 513] [--repeats 5]

Without --data-root: 640x480 images of the demo's drawing, enlarged, as JPEG and palette PNG in a temporary folder.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloaders import RandomScaleCrop, SegmentationDataset, TrainDataset
from dataloaders.demo import Demo
from dataloaders.voc import VOC
from utils.palettes import voc_palette

SIZE = (640, 480)


def write_voc(root: Path, count: int) -> None:
    """`count` images of VOC's kind: textured, 640x480, JPEG at quality 90, labels with VOC's palette."""
    demo, random = Demo("train"), np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        image, label = demo.read(index)
        pixels = np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC), np.float64)
        pixels += random.normal(0, 8, pixels.shape)  # grain, as photographs have: it is what JPEG spends its bytes on
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"JPEGImages/{index}.jpg", quality=90)
        label = label.resize(SIZE, Image.Resampling.NEAREST)
        label.putpalette(np.array(voc_palette(256), np.uint8).tobytes())
        label.save(root / f"SegmentationClass/{index}.png")
    ids = "\n".join(map(str, range(count)))
    (root / "ImageSets/Segmentation/train.txt").write_text(ids + "\n")


def decode(images: SegmentationDataset, index: int) -> None:
    for path in (images.image_path(index), images.label_path(index)):
        with Image.open(path) as image:
            image.load()


def milliseconds(work: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    for index in range(count):
        work(index)
    return 1000 * (time.perf_counter() - start) / count


def measure(images: SegmentationDataset, crop_size: int, repeats: int) -> None:
    crop = RandomScaleCrop((crop_size, crop_size), fill=(124, 116, 104))
    samples = TrainDataset(images, crop, seed=1)
    count, rows = len(images), {"decode": [], "sample": []}
    for repeat in range(repeats + 1):
        # In turns, so that whatever else the machine does meets both
        alone = milliseconds(lambda index: decode(images, index), count)
        whole = milliseconds(lambda index, epoch=repeat: samples[epoch, index], count)
        if repeat:  # the first pass warms the file cache
            rows["decode"].append(alone)
            rows["sample"].append(whole)
    alone, whole = (statistics.median(times) for times in rows.values())
    print(f"{'':<40} {'ms a picture':>12}   median of {repeats} passes over {count} images")
    print(f"{'Pillow decodes image and label':<40} {alone:>12.2f}")
    print(f"{f'training sample, crop {crop_size}':<40} {whole:>12.2f}")
    print(f"ratio {whole / alone:.2f}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--crop-size", type=int, default=513)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # as in a loader's worker
    if args.data_root:
        measure(VOC(args.data_root, "train"), args.crop_size, args.repeats)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_voc(Path(folder), 40)
        measure(VOC(Path(folder), "train"), args.crop_size, args.repeats)


if __name__ == "__main__":
    main()
