"""Scores near borders: trimap bands (DeepLabV3+ section 4.4) and boundary IoU (Cheng et al., CVPR 2021)."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt, distance_transform_edt
from torch import Tensor

from utils.distributed import all_reduce
from utils.losses import IGNORE_INDEX
from utils.scoring.metrics import ConfusionMatrix, nan_to_none


class Trimap:
    """mIoU over the labeled pixels at most `widths` pixels (Euclidean) from a border.

    `border="void"`: from the nearest pixel labeled 255, as VOC draws them around objects; an image without any adds
    nothing. `border="classes"`: from the nearest pixel labeled as another class.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, *, border: str):
        self.border = border
        self.matrices = {width: ConfusionMatrix(num_classes) for width in sorted(set(widths))}

    def update(self, key: str, prediction: Tensor, label: Tensor) -> None:
        """`prediction` and `label` uint8 [H, W]."""
        measure = distance_to_void if self.border == "void" else distance_to_other_class
        distance = torch.from_numpy(measure(label.numpy()))
        for width, matrix in self.matrices.items():
            band = distance <= width
            matrix.update(prediction[band], label[band])

    def all_reduce(self, device: torch.device) -> None:
        for matrix in self.matrices.values():
            matrix.counts = all_reduce(matrix.counts.to(device)).cpu()

    def scores(self, classes: Sequence[str]) -> dict:
        """`border`, and `miou` {width: 0..1, or None for a band without labeled pixels}."""
        mious = {str(width): matrix.scores(classes)["miou"] for width, matrix in self.matrices.items()}
        return {"border": self.border, "miou": mious}


def distance_to_void(label: np.ndarray) -> np.ndarray:
    """Euclidean distance in pixels to the nearest 255, float64 [H, W]; infinite in a label without any."""
    is_labeled = label != IGNORE_INDEX
    if is_labeled.all():  # distance_transform_edt needs at least one pixel to measure from
        return np.full(label.shape, np.inf)
    return distance_transform_edt(is_labeled)


def distance_to_other_class(label: np.ndarray) -> np.ndarray:
    """Euclidean distance in pixels from each labeled pixel to the nearest one of another class, float64 [H, W].

    Infinite at 255, and in a label of a single class.
    """
    distance = np.full(label.shape, np.inf)
    is_labeled = label != IGNORE_INDEX
    for value in np.unique(label[is_labeled]):
        inside, others = label == value, is_labeled & (label != value)
        if others.any():
            distance[inside] = distance_transform_edt(~others)[inside]
    return distance


class BoundaryIoU:
    """IoU of the pixels of truth and prediction that lie within a distance of their own mask's outline.

    The chessboard distance is `ratio` of the image's diagonal, at least 1 pixel, and the edge of the image counts as
    an outline, as in the authors' code. That code has no ignored pixels: here 255 belongs to no mask of either side, so
    a prediction there changes nothing, and one that is right at every labeled pixel scores 1.
    """

    def __init__(self, num_classes: int, *, ratio: float = 0.02):
        self.ratio, self.num_classes = ratio, num_classes
        self.counts = torch.zeros(2, num_classes, dtype=torch.int64)  # pixels of intersection and union

    def update(self, key: str, prediction: Tensor, label: Tensor) -> None:
        """`prediction` and `label` uint8 [H, W]."""
        truth, is_labeled = label.numpy(), label.numpy() != IGNORE_INDEX
        predicted = np.where(is_labeled, prediction.numpy(), IGNORE_INDEX)
        distance = max(1, round(self.ratio * float(np.hypot(*truth.shape))))
        for value in np.union1d(truth[is_labeled], predicted[is_labeled]):
            one, other = (outline(labels == value, distance) for labels in (truth, predicted))
            self.counts[0, value] += int((one & other).sum())
            self.counts[1, value] += int((one | other).sum())

    def all_reduce(self, device: torch.device) -> None:
        self.counts = all_reduce(self.counts.to(device)).cpu()

    def scores(self, classes: Sequence[str]) -> dict:
        """`ratio`, `miou` over the classes whose union is not empty, `per_class` {name: 0..1 or None}."""
        iou = self.counts[0].double() / self.counts[1]
        per_class = {name: nan_to_none(value) for name, value in zip(classes, iou, strict=True)}
        return {"ratio": self.ratio, "miou": nan_to_none(iou.nanmean()), "per_class": per_class}


def outline(mask: np.ndarray, distance: int) -> np.ndarray:
    """bool [H, W]: the pixels of `mask` that `distance` erosions by a 3x3 square remove."""
    to_outside = distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
    return mask & (to_outside <= distance)
