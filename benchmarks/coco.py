"""COCO at its real size, made up: the first start, later ones, memory, and the time of a label.

    python -m benchmarks.coco [--images 118287] [--outlines 860001] [--labels 500] [--folder DIR]

A first start has an empty cache. A label is drawn as the dataset does and pixel by pixel with pycocotools, in turns,
and compared. Memory, on Linux alone: of a process above that with a dataset of one image, and what a data worker that
has drawn every label shares with no other process (Private_Dirty).

At full size it takes about three minutes and 1 GB in a temporary folder; --folder keeps the files for another call.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118287, help="of training (default: %(default)s, COCO's)")
    parser.add_argument("--outlines", type=int, default=860001, help="of training (default: %(default)s, COCO's)")
    parser.add_argument("--labels", type=int, default=500, help="to draw both ways (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="write the data there and keep it, or take what is there")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.coco_files import write_split
from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.annotations import read_annotations
from dataloaders.checks.layout import raise_first
from dataloaders.coco import COCO
from dataloaders.coco_index import CLASS_OF
from dataloaders.coco_labels import encode_outline
from dataloaders.loaders import init_worker

SPLITS = ("train", "val")
VAL_SHARE = 5000 / 118287  # of the number of training images
ONE_IMAGE = "one"  # folder of the smallest data set
MIB = 1 << 20


def draw_pixelwise(objects: Sequence[tuple], height: int, width: int) -> np.ndarray:
    """The label uint8 [height, width] by its definition: a mask of pycocotools for each (class, is_crowd, outline)."""
    from pycocotools import mask as mask_tools

    label, crowd = np.zeros((height, width), np.uint8), np.zeros((height, width), bool)
    for number, is_crowd, outline in objects:
        mask = mask_tools.decode(encode_outline(outline, height, width)).astype(bool)
        if is_crowd:
            crowd |= mask
            continue
        overlap = mask & (label != 0) & (label != number)
        label[mask] = number
        label[overlap] = IGNORE_INDEX
    label[crowd] = IGNORE_INDEX
    return label


def memory(name: str, file: str = "status") -> float:
    """MiB of a row of /proc/self/`file`."""
    rows = (line.split() for line in Path(f"/proc/self/{file}").read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == f"{name}:") / 1024


def measure_start(root: Path) -> dict[str, float]:
    """Seconds to construct both splits, and MiB: of this process above one image, and of its largest child."""
    COCO(root / ONE_IMAGE, "val")
    before, found = memory("VmRSS"), {}
    datasets = []
    for split in SPLITS:
        start = time.perf_counter()
        datasets.append(COCO(root, split))
        found[split] = time.perf_counter() - start
    found["memory"] = memory("VmRSS") - before
    found["peak"] = memory("VmHWM") - before
    found["child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return found


class AllLabels(Dataset):
    """Draws a label; the item is the memory in MiB that the process shares with no other, at the last one."""

    def __init__(self, dataset: COCO):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> float:
        self.dataset.open_label(index)
        return memory("Private_Dirty", "smaps_rollup") if index == len(self) - 1 else 0.0


def measure_worker(root: Path) -> dict[str, float]:
    """Own MiB of a data worker that has drawn every training label, and milliseconds a label."""
    dataset = COCO(root, "train")
    start = time.perf_counter()
    loader = DataLoader(AllLabels(dataset), batch_size=100, num_workers=1, worker_init_fn=init_worker)
    own = max(float(batch.max()) for batch in loader)
    return {"own": own, "ms": 1000 * (time.perf_counter() - start) / len(dataset)}


def measure_labels(root: Path, count: int) -> dict[str, float]:
    """Mean milliseconds of a label of the validation set, drawn both ways in turns and compared."""
    dataset = COCO(root, "val")
    annotations = read_annotations(dataset.annotation_file, CLASS_OF, raise_first)
    times = []
    for index in range(min(count, len(dataset))):
        image = annotations.images[dataset.image_id(index)]
        objects = annotations.objects.get(image["id"], ())
        start = time.perf_counter()
        expected = draw_pixelwise(objects, image["height"], image["width"])
        middle = time.perf_counter()
        label = dataset.open_label(index)
        times.append((middle - start, time.perf_counter() - middle))
        assert np.array_equal(np.asarray(label), expected), dataset.describe_label(index)
    pixelwise, ours = (1000 * statistics.mean(values) for values in zip(*times, strict=True))
    return {"pixelwise": pixelwise, "ours": ours}


MEASURES = {"start": measure_start, "worker": measure_worker, "labels": measure_labels}


def in_new_process(name: str, root: Path, *more: int) -> dict[str, float]:
    """What a measure returns in a fresh process, whose imports are not counted."""
    call = f"import json, pathlib, sys; from benchmarks.coco import {MEASURES[name].__name__} as measure\n"
    call += "print(json.dumps(measure(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))))"
    environment = os.environ | {"DEEPLAB_CACHE": str(root / "cache")}
    command = [sys.executable, "-c", call, str(root), *map(str, more)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def write_data(root: Path, num_images: int, num_outlines: int) -> None:
    """What is not there yet."""
    val = [max(1, round(VAL_SHARE * count)) for count in (num_images, num_outlines)]
    sizes = {("train", root): (num_images, num_outlines), ("val", root): val, ("val", root / ONE_IMAGE): (1, 1)}
    for seed, ((split, folder), counts) in enumerate(sizes.items()):
        if not (folder / f"annotations/instances_{split}2017.json").is_file():
            write_split(folder, split, *counts, seed=seed)


def report(root: Path, num_labels: int) -> None:
    """Print a row for each measure."""
    size = (root / "annotations/instances_train2017.json").stat().st_size / MIB
    first = in_new_process("start", root)
    cache = sum(file.stat().st_size for file in (root / "cache").glob("*.labels")) / MIB
    later, worker, labels = in_new_process("start", root), in_new_process("worker", root), {}
    labels = in_new_process("labels", root, num_labels)
    rows = [
        ("training annotations, MiB", size),
        ("first start, train, s", first["train"]),
        ("first start, val, s", first["val"]),
        ("first start, peak of the process, MiB", first["peak"]),
        ("the same of a child, shared pages too, MiB", first["child"]),
        ("memory kept after it, MiB", first["memory"]),
        ("cache, MiB", cache),
        ("later start, train, s", later["train"]),
        ("later start, val, s", later["val"]),
        ("memory after a later start, MiB", later["memory"]),
        ("own memory of a worker after all labels, MiB", worker["own"]),
        ("label in that worker, ms", worker["ms"]),
        ("label pixel by pixel, ms", labels["pixelwise"]),
        ("label, ms", labels["ours"]),
        ("ratio", labels["ours"] / labels["pixelwise"]),
    ]
    for name, value in rows:
        print(f"{name:<46} {value:>9.{1 if value > 20 else 3}f}")


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        root = args.folder or Path(temporary)
        start = time.perf_counter()
        write_data(root, args.images, args.outlines)
        print(
            f"{args.images} images, {args.outlines} outlines: written in {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        shutil.rmtree(root / "cache", ignore_errors=True)
        report(root, args.labels)


if __name__ == "__main__":
    main()
