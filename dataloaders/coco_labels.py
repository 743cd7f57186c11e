"""COCO's objects to labels, and labels as runs of uint16: 5 bits for the class, 11 for the length, column by column.

An outline is constant between the ends of its own runs. So a label is computed for the intervals between the ends of
the runs of all outlines of an image, a few thousand, not for its pixels, and is the same to the last one.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_tools

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.annotations import Outline, decode_counts

NUM_CLASSES = 21
VALUES = np.array([*range(NUM_CLASSES), IGNORE_INDEX], np.uint8)  # that the upper bits of a run number
NUMBERS = np.zeros(256, np.int64)
NUMBERS[VALUES] = range(len(VALUES))
LENGTH_BITS = 11
MAX_LENGTH = (1 << LENGTH_BITS) - 1  # a longer run is several of them


def draw_runs(objects: Sequence[tuple[int, bool, Outline]], height: int, width: int) -> tuple[np.ndarray, int]:
    """(runs of the label uint16, number of its pixels of the classes 1..20).

    `objects` are (class, is_crowd, outline) in the order of the file. The label has the class, 255 where two classes
    overlap and in crowds, 0 elsewhere.
    """
    lengths, values = label_runs(objects, height, width)
    return encode_runs(lengths, values), int(lengths[(values > 0) & (values < NUM_CLASSES)].sum())


def label_runs(objects: Sequence[tuple], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(lengths int64, values uint8) of the label's runs; neighbors have different values."""
    ends = [outline_ends(outline, height, width) for _, _, outline in objects]
    edges = np.unique(np.concatenate(([0, height * width], *ends)))
    starts, values = edges[:-1], np.zeros(len(edges) - 1, np.uint8)
    is_crowded = np.zeros(len(values), bool)
    for (number, is_crowd, _), end in zip(objects, ends, strict=True):
        first, last = np.searchsorted(starts, (end[0], end[-1]))  # before its first end an outline is 0
        is_inside = np.searchsorted(end, starts[first:last], side="right") % 2 == 1  # runs are 0 and 1 in turn
        if is_crowd:
            is_crowded[first:last] |= is_inside
            continue
        part = values[first:last]
        is_other = is_inside & (part != 0) & (part != number)
        part[is_inside] = number
        part[is_other] = IGNORE_INDEX
    values[is_crowded] = IGNORE_INDEX
    is_first = np.concatenate(([True], values[1:] != values[:-1]))
    return np.diff(edges[np.append(np.flatnonzero(is_first), len(values))]), values[is_first]


def outline_ends(outline: Outline, height: int, width: int) -> np.ndarray:
    """The pixel behind each run of an outline, int64; the first run is of zeros and may be empty."""
    if isinstance(outline, dict) and isinstance(outline["counts"], list):
        return np.cumsum(outline["counts"])
    counts = encode_outline(outline, height, width)["counts"]
    return np.cumsum(decode_counts(counts if isinstance(counts, str) else counts.decode()))


def encode_outline(outline: Outline, height: int, width: int) -> dict:
    """Compressed run lengths of polygons, or of run lengths, compressed or not."""
    if isinstance(outline, list):
        return mask_tools.merge(mask_tools.frPyObjects(outline, height, width))
    return mask_tools.frPyObjects(outline, height, width) if isinstance(outline["counts"], list) else outline


def encode_runs(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """uint16: the place of the value in VALUES, and the length."""
    num_parts = -(-lengths // MAX_LENGTH)
    last = np.cumsum(num_parts) - 1
    parts = np.full(last[-1] + 1, MAX_LENGTH)
    parts[last] = lengths - (num_parts - 1) * MAX_LENGTH
    return (np.repeat(NUMBERS[values], num_parts) << LENGTH_BITS | parts).astype(np.uint16)


def decode_runs(runs: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [height, width]."""
    columns = np.repeat(VALUES[runs >> LENGTH_BITS], runs & MAX_LENGTH)
    return np.ascontiguousarray(columns.reshape(width, height).T)
