"""Maps in strips of rows that fit in the caches."""

from collections.abc import Iterator, Sequence

import torch

CPU_STRIP = 2**20  # elements: about what the caches of a core hold
GPU_STRIP = 2**26  # few launches


def strips(shape: Sequence[int], device: torch.device, *, multiple: int = 1) -> Iterator[slice]:
    """Strips of the rows of a map [B, K, H, W], from top to bottom; all but the last have a `multiple` of rows."""
    batch, channels, height, width = shape
    limit = CPU_STRIP if device.type == "cpu" else GPU_STRIP
    step = max(1, limit // (batch * channels * width * multiple)) * multiple
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
