"""Time of the counts that observers make, compared with the masks and distance transforms that define them.

    python -m benchmarks.observers [--size 1024 2048] [--classes 19] [--widths 1 2 4 8 16 32] [--threads 2]

Labels are generated: 600 ellipses of all classes and of 255. A definition runs in one thread; it must give the same
counts.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[1024, 2048], metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt, distance_transform_edt
from torch import Tensor

from utils.constants import IGNORE_INDEX
from utils.scoring.boundaries import BoundaryIoU, Trimap
from utils.scoring.metrics import ConfusionMatrix

RATIO = 0.02  # of the diagonal, for boundary IoU
Count = Callable[[Tensor, Tensor], Tensor]  # prediction and label, uint8 [H, W] -> int64


def scene(seed: int, size: Sequence[int], num_classes: int) -> tuple[Tensor, Tensor]:
    """(prediction, label); the prediction is the label moved 3 pixels to the right, with a class instead of 255."""
    random, label = np.random.default_rng(seed), np.zeros(size, np.uint8)
    values = np.append(np.arange(num_classes), IGNORE_INDEX)
    for y, x, height, width in random.uniform((0, 0, 4, 4), (*size, size[0] / 8, size[0] / 8), (600, 4)):
        top, left = max(0, int(y - height)), max(0, int(x - width))
        part = label[top : int(y + height), left : int(x + width)]
        rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
        part[((rows + top - y) / height) ** 2 + ((columns + left - x) / width) ** 2 <= 1] = random.choice(values)
    prediction = np.roll(label, 3, axis=1)
    prediction[prediction == IGNORE_INDEX] = 0
    return torch.from_numpy(prediction), torch.from_numpy(label)


def count_in_mask(prediction: Tensor, label: Tensor, *, num_classes: int, mask: Tensor | None = None) -> Tensor:
    mask = label != IGNORE_INDEX if mask is None else mask
    pairs = label[mask].long() * num_classes + prediction[mask].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def transform_trimap(
    prediction: Tensor, label: Tensor, *, widths: Sequence[int], num_classes: int, border: str
) -> Tensor:
    """By a Euclidean distance transform for each class, or one for 255."""
    values = label.numpy()
    is_labeled, distance = values != IGNORE_INDEX, np.full(values.shape, np.inf)
    if border == "void":
        distance = distance_transform_edt(is_labeled)
    else:
        for value in np.unique(values[is_labeled]):
            inside = values == value
            distance[inside] = distance_transform_edt(~is_labeled | inside)[inside]
    bands = [torch.from_numpy(is_labeled & (distance <= width)) for width in widths]
    return torch.stack([count_in_mask(prediction, label, num_classes=num_classes, mask=band) for band in bands])


def transform_boundary(prediction: Tensor, label: Tensor, *, num_classes: int) -> Tensor:
    """By two chessboard distance transforms for each class."""
    truth = label.numpy()
    predicted = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, prediction.numpy())
    reach = max(1, round(RATIO * float(np.hypot(*truth.shape))))
    counts = torch.zeros(2, num_classes, dtype=torch.int64)
    for value in np.setdiff1d([truth, predicted], IGNORE_INDEX):
        masks = [labels == value for labels in (truth, predicted)]
        distances = [distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1] for mask in masks]
        one, other = (mask & (distance <= reach) for mask, distance in zip(masks, distances, strict=True))
        counts[:, value] = torch.tensor([(one & other).sum(), (one | other).sum()])
    return counts


def count_confusion(prediction: Tensor, label: Tensor, *, num_classes: int) -> Tensor:
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction, label)
    return confusion.counts


def cases(widths: Sequence[int], num_classes: int) -> dict[str, tuple[Count, Count]]:
    """Name -> (the definition, the library)."""
    one, part = {"num_classes": num_classes}, functools.partial
    found = {"confusion matrix": (part(count_in_mask, **one), part(count_confusion, **one))}
    for border in ("classes", "void"):
        trimap = Trimap(widths, num_classes, border=border)
        definition = part(transform_trimap, widths=trimap.widths, border=border, **one)
        found[f"trimap, border {border}"] = (definition, part(trimap.measure, "", image=None))
    boundary = BoundaryIoU(num_classes, ratio=RATIO)
    found["boundary IoU"] = (part(transform_boundary, **one), part(boundary.measure, "", image=None))
    return found


def measure(count: Count, scenes: Sequence, num_threads: int) -> tuple[float, list[Tensor]]:
    """(milliseconds an image, the counts)."""
    with ThreadPoolExecutor(num_threads, "benchmark", torch.set_num_threads, (1,)) as pool:
        list(pool.map(time.sleep, [0.01] * num_threads))  # starts the threads
        start = time.perf_counter()
        counts = list(pool.map(count, *zip(*scenes, strict=True)))
        return 1000 * (time.perf_counter() - start) / len(scenes), counts


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    scenes = [scene(seed, args.size, args.classes) for seed in range(args.images)]
    print(f"ms an image, median of {args.repeats} passes over {args.images} images of {args.size[0]}x{args.size[1]}")
    print(f"{'':<24} {'definition':>10} {'1 thread':>10} {'ratio':>6} {f'{args.threads} threads':>10} {'ratio':>6}")
    for name, (definition, ours) in cases(args.widths, args.classes).items():
        columns = []
        for _ in range(args.repeats):  # in turns, so that other load on the machine affects all
            results = [measure(definition, scenes, 1), measure(ours, scenes, 1), measure(ours, scenes, args.threads)]
            times, counts = zip(*results, strict=True)
            assert all(torch.equal(*map(torch.stack, (counts[0], other))) for other in counts[1:]), name
            columns.append(times)
        slow, one, many = map(statistics.median, zip(*columns, strict=True))
        print(f"{name:<24} {slow:>10.1f} {one:>10.1f} {slow / one:>6.1f} {many:>10.1f} {slow / many:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
