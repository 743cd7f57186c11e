"""Scores near borders: trimap bands (DeepLabV3+ section 4.4) and boundary IoU (Cheng et al., CVPR 2021).

Both ask which labels occur within a distance of a pixel. A pair of maps answers it for all classes at once: the label,
and 255 minus it. Their largest values within the distance add up to 255 where only one label occurs.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from utils.constants import IGNORE_INDEX
from utils.distributed import all_reduce
from utils.scoring.loop import Observer
from utils.scoring.metrics import count_pairs, nan_to_none, score_counts


class Trimap(Observer):
    """mIoU over the labeled pixels at most `widths` pixels (Euclidean) from a border.

    `border="void"`: from the nearest pixel labeled 255, as VOC draws them around objects; an image without any adds
    nothing. `border="classes"`: from the nearest pixel labeled as another class.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, *, border: str):
        self.border, self.widths = border, sorted(set(widths))
        self.counts = torch.zeros(len(self.widths), num_classes, num_classes, dtype=torch.int64)  # of each band

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None) -> Tensor:
        """The counts of this image. Its time grows with the sum of the widths."""
        num_bands, num_classes = self.counts.shape[:2]
        band = torch.from_numpy(narrowest_band(label.numpy(), self.widths, self.border)).int()
        rows = torch.add(label.clamp(max=num_classes), band, alpha=num_classes + 1)
        counts = count_pairs(rows, prediction, (num_bands + 1) * (num_classes + 1), num_classes)
        counts = counts.view(num_bands + 1, num_classes + 1, num_classes)
        return counts[:-1, :-1].cumsum(0)  # a band holds the narrower ones; without the pixels labeled 255

    def add(self, measured: Tensor) -> None:
        self.counts += measured

    def all_reduce(self, device: torch.device) -> None:
        self.counts = all_reduce(self.counts.to(device)).cpu()

    def scores(self, classes: Sequence[str]) -> dict:
        """`border`, and `miou` {width: 0..1, or None for a band without labeled pixels}."""
        bands = zip(self.widths, self.counts, strict=True)
        return {"border": self.border, "miou": {str(w): score_counts(counts, classes)["miou"] for w, counts in bands}}


def narrowest_band(label: np.ndarray, widths: Sequence[int], border: str) -> np.ndarray:
    """int16 [H, W]: the index in the ascending `widths` of the first band that holds a pixel, their number if none.

    `label` uint8 [H, W]; arbitrary at pixels labeled 255.
    """
    is_void = label == IGNORE_INDEX
    if border == "void":
        maps, is_far = is_void[None].view(np.uint8), lambda largest: largest[0] == 0
    else:  # void becomes 0, which is the largest value of no disk that holds a label
        maps, is_far = np.where(is_void, np.uint8(0), both_ways(label)), has_one_label
    index = np.zeros(label.shape, np.int16)
    for width in widths:
        index += is_far(disk_maximum(maps, width))
    return index


class BoundaryIoU(Observer):
    """IoU of the pixels of truth and prediction that lie within a distance of their own mask's outline.

    The chessboard distance is `ratio` of the image's diagonal, at least 1 pixel, and the edge of the image counts as
    an outline, as in the authors' code. That code has no ignored pixels: here 255 belongs to no mask of either side, so
    a prediction there changes nothing, and one that is right at every labeled pixel scores 1.
    """

    def __init__(self, num_classes: int, *, ratio: float = 0.02):
        self.ratio, self.num_classes = ratio, num_classes
        self.counts = torch.zeros(2, num_classes, dtype=torch.int64)  # pixels of intersection and union

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None) -> Tensor:
        """The counts of this image."""
        distance = max(1, round(self.ratio * float(np.hypot(*label.shape))))
        predicted = prediction.masked_fill(label == IGNORE_INDEX, IGNORE_INDEX)
        truth, predicted = (
            torch.from_numpy(outlines(one.numpy(), distance)).clamp(max=self.num_classes) for one in (label, predicted)
        )
        counts = count_pairs(truth, predicted, self.num_classes + 1, self.num_classes + 1)
        intersection = counts.diag()
        union = counts.sum(1) + counts.sum(0) - intersection
        return torch.stack([intersection, union])[:, :-1]

    def add(self, measured: Tensor) -> None:
        self.counts += measured

    def all_reduce(self, device: torch.device) -> None:
        self.counts = all_reduce(self.counts.to(device)).cpu()

    def scores(self, classes: Sequence[str]) -> dict:
        """`ratio`, `miou` over the classes whose union is not empty, `per_class` {name: 0..1 or None}."""
        iou = self.counts[0].double() / self.counts[1]
        per_class = {name: nan_to_none(value) for name, value in zip(classes, iou, strict=True)}
        return {"ratio": self.ratio, "miou": nan_to_none(iou.nanmean()), "per_class": per_class}


def outlines(label: np.ndarray, distance: int) -> np.ndarray:
    """`label` uint8 [H, W] at the pixels that `distance` erosions of their class by a 3x3 square remove; 255 elsewhere.

    255 and what lies outside the image belong to no class.
    """
    return np.where(has_one_label(square_maximum(both_ways(label), distance)), np.uint8(IGNORE_INDEX), label)


def both_ways(label: np.ndarray) -> np.ndarray:
    """uint8 [2, H, W]: `label` and 255 minus `label`."""
    return np.stack([label, 255 - label])


def has_one_label(largest: np.ndarray) -> np.ndarray:
    """bool [H, W]: whether the largest values [2, H, W] of `both_ways` belong to a single label."""
    return largest[0] == 255 - largest[1]


def disk_maximum(maps: np.ndarray, radius: int) -> np.ndarray:
    """The largest value at most `radius` pixels (Euclidean) from each pixel; uint8 [N, H, W]."""
    height, width = maps.shape[1:]
    pad = min(radius, width)
    runs, length = np.pad(maps, ((0, 0), (0, 0), (pad, pad))), 1  # the largest of `length` pixels to the right
    largest, row = maps.copy(), np.empty_like(maps)
    for dy in range(min(radius, height - 1), -1, -1):  # the disk's rows, each at least as long as the one before
        half = min(math.isqrt(radius**2 - dy**2), width)
        while 2 * length <= 2 * half + 1:
            runs, length = np.maximum(runs[..., :-length], runs[..., length:]), 2 * length
        left, right = pad - half, pad + half + 1 - length  # two runs that overlap cover the row
        np.maximum(runs[..., left : left + width], runs[..., right : right + width], out=row)
        for here, there in ((slice(dy, None), slice(height - dy)), (slice(height - dy), slice(dy, None))):
            np.maximum(largest[:, here], row[:, there], out=largest[:, here])
    return largest


def square_maximum(maps: np.ndarray, radius: int) -> np.ndarray:
    """The largest value at most `radius` rows and columns from each pixel, 255 outside the image; uint8 [N, H, W]."""
    for axis in (1, 2):
        pad = min(radius, maps.shape[axis])
        padding = [(pad, pad) if axis == each else (0, 0) for each in range(3)]
        maps = np.moveaxis(np.pad(maps, padding, constant_values=255), axis, 0)
        length = 1  # as in `disk_maximum`
        while length < 2 * pad + 1:
            step = min(length, 2 * pad + 1 - length)
            maps, length = np.maximum(maps[:-step], maps[step:]), length + step
        maps = np.moveaxis(maps, 0, axis)
    return maps
