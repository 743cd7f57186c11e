"""Maps [B, K, H, W] in strips of rows that fit in the caches, so that one as large as the image need not exist."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from utils.geometry import resize

CPU_STRIP = 2**20  # elements: about what the caches of a core hold
GPU_STRIP = 2**26  # few launches
SMALL = 128  # rows and columns together: the CPU resizes up to so many by another kernel, which rounds differently


def strips(shape: Sequence[int], device: torch.device, *, multiple: int = 1) -> Iterator[slice]:
    """Strips of the rows of a map [B, K, H, W], from top to bottom; all but the last have a `multiple` of rows."""
    batch, channels, height, width = shape
    limit = CPU_STRIP if device.type == "cpu" else GPU_STRIP
    step = max(1, limit // (batch * channels * width * multiple)) * multiple
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


class RowMap:
    """A map of `shape` [B, K, H, W] on `device` whose rows are computed when they are read.

    Strips that start at a `multiple` of rows compute no row twice.
    """

    multiple = 1

    def __init__(self, shape: Sequence[int], device: torch.device):
        self.shape, self.device = tuple(shape), device

    def rows(self, rows: slice) -> Tensor:
        """[B, K, rows, W]; `rows` has start and stop."""
        raise NotImplementedError

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows, from top to bottom."""
        for rows in strips(self.shape, self.device, multiple=self.multiple):
            yield rows, self.rows(rows)

    def whole(self) -> Tensor:
        """[B, K, H, W]"""
        whole = None
        for rows, part in self.strips():
            if whole is None and rows.stop == self.shape[2]:
                return part
            whole = part.new_empty(self.shape) if whole is None else whole
            whole[:, :, rows] = part
        return whole


class TensorMap(RowMap):
    """A tensor."""

    def __init__(self, maps: Tensor):
        super().__init__(maps.shape, maps.device)
        self.maps = maps

    def rows(self, rows: slice) -> Tensor:
        return self.maps[:, :, rows]

    def whole(self) -> Tensor:
        return self.maps


class UpsampledMap(RowMap):
    """`resize(coarse, full)[..., :height, :width]`, the same bits; `size` is (height, width).

    In strips where rows of `coarse` are 2, 4, 8, ... rows apart in the result, so that no position is rounded: that is
    so for the logits of a network at an image of k * output_stride + 1 rows. Otherwise the whole is computed at once.
    """

    def __init__(self, coarse: Tensor, full: tuple[int, int], size: tuple[int, int]):
        super().__init__((*coarse.shape[:2], *size), coarse.device)
        self.full_width, self.factor = full[1], row_factor(coarse.shape[2], full[0])
        self.multiple = self.factor or 1
        self.maps = coarse.contiguous() if self.factor else resize(coarse.contiguous(), full)
        # Distances of rows in a strip: one has none to the next
        self.least = min(max(1, -((full[1] - SMALL) // self.multiple)), coarse.shape[2] - 1)

    def rows(self, rows: slice) -> Tensor:
        if not self.factor:
            return self.maps[:, :, rows, : self.shape[3]]
        bottom = max(-(-(rows.stop - 1) // self.factor), self.least)  # of the maps
        top = min(rows.start // self.factor, bottom - self.least)
        part = resize(self.maps[:, :, top : bottom + 1], ((bottom - top) * self.factor + 1, self.full_width))
        start = top * self.factor
        return part[:, :, rows.start - start : rows.stop - start, : self.shape[3]]


def row_factor(coarse: int, full: int) -> int:
    """The distance of `coarse` rows among `full` ones with aligned corners if it is a power of two, else 0."""
    if coarse < 2 or (full - 1) % (coarse - 1):
        return 0
    factor = (full - 1) // (coarse - 1)
    return factor if factor & (factor - 1) == 0 else 0


class ResizedMap(RowMap):
    """`resize` of a row map to `size` (height, width), but for rounding: first columns, then rows."""

    def __init__(self, source: RowMap, size: tuple[int, int]):
        super().__init__((*source.shape[:2], *size), source.device)
        self.source = source

    def rows(self, rows: slice) -> Tensor:
        last, height = self.source.shape[2] - 1, self.shape[2]
        # In NumPy, because the host needs the first and the last; in float32 as torch's
        positions = np.arange(rows.start, rows.stop, dtype=np.float32) * np.float32(last / max(height - 1, 1))
        upper = np.minimum(positions.astype(np.int64), last)
        lower = np.minimum(upper + 1, last)
        part = self.source.rows(slice(int(upper[0]), int(lower[-1]) + 1))
        above, below, weight = (
            torch.tensor(each.tolist(), device=self.device)
            for each in (upper - upper[0], lower - upper[0], positions - upper)
        )
        mixed = part.index_select(2, above).lerp(part.index_select(2, below), weight[:, None])
        return resize(mixed, (rows.stop - rows.start, self.shape[3]))
