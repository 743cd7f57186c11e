"""Labels of an image that is too large for one forward pass, from overlapping windows, one at a time.

The class scores of the whole image never exist: those of a window become labels as soon as its neighbors have had their
share in them, and only a strip of scores along the row of windows is kept.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.inference import Predictor
from utils.labels import labels_and_confidence

MAX_PIXELS = 2048 * 1024  # of an image that is passed whole
GRID = 32  # pixels; the largest output stride: windows at a multiple of it see the image as the whole network does
WINDOW = 32 * GRID + 1  # pixels of a side
Result = TypeVar("Result")


class Span(NamedTuple):
    """A window along one side of the image, in pixels: it reads `start` to `stop`, and counts from `begin` to `end`.

    It shares the pixels from its `begin` to the `end` of the window before it, and those from `done` to `end` with the
    next; those up to `done` are complete once it is added.
    """

    start: int
    stop: int
    begin: int
    end: int
    done: int


def spans(side: int, window: int, overlap: int, fade: int) -> list[Span]:
    """Windows of at most `window` pixels at multiples of `GRID`, evenly spaced, that overlap by at least `overlap`
    pixels. Neighbors share `fade` pixels in the middle of their overlap. `window - overlap` is a multiple of `GRID`.
    """
    last = max(0, -(-(side - window) // GRID) * GRID)
    num_steps = -(-last // (window - overlap))
    starts = [last * number // max(1, num_steps) // GRID * GRID for number in range(num_steps + 1)]
    stops = [min(start + window, side) for start in starts]
    shared = [(stop + start - fade) // 2 for stop, start in zip(stops, starts[1:], strict=False)]
    begins, dones = [0, *shared], [*shared, side]
    ends = [*(first + fade for first in shared), side]
    return [Span(*span) for span in zip(starts, stops, begins, ends, dones, strict=True)]


def overlap(side: int) -> tuple[int, int]:
    """(how many pixels windows of `side` overlap by, over how many in the middle of these the scores fade).

    257 and 64 for 1025. The rest of the overlap is left out: near its border a window sees padding.
    """
    shared = side // 4 // GRID * GRID + 1
    return shared, shared // 4


def window_side(scales: Sequence[float]) -> int:
    """Pixels of the side of a window, a multiple of `GRID` and 1, whose largest view has at most `WINDOW`."""
    return max(1, int((WINDOW - 1) / max(1, *scales)) // GRID) * GRID + 1


def is_large(size: Sequence[int], scales: Sequence[float]) -> bool:
    """Whether an image of `size`, or its largest view, has more than `MAX_PIXELS`."""
    return size[0] * size[1] * max(1, *scales) ** 2 > MAX_PIXELS


def window_grid(
    size: Sequence[int], scales: Sequence[float], *, is_blended: bool = True
) -> tuple[list[Span], list[Span]]:
    """The rows and columns of windows for an image of `size` (width, height)."""
    side = window_side(scales)
    shared, fade = overlap(side)
    columns, rows = (spans(length, side, shared, fade * is_blended) for length in size)
    return rows, columns


def describe_windows(size: Sequence[int], scales: Sequence[float]) -> str:
    """A note for the first image, of `size` (width, height)."""
    rows, columns = window_grid(size, scales)
    side = window_side(scales)
    return (
        f"note: {size[0]}x{size[1]} pixels are labeled in {len(rows) * len(columns)} overlapping windows of "
        f"{side}x{side}, as all images above 2048x1024 pixels at the largest scale; "
        "--protocol whole (in Python whole=True) takes one pass"
    )


def label_in_windows(
    predictor: Predictor, image: Image.Image, *, with_confidence: bool, is_blended: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels uint8 [H, W], and their probabilities float32 [H, W] or None, of an RGB `image`.

    Without `is_blended` a pixel takes the scores of the window in whose middle it is.
    """
    rows, columns = window_grid(image.size, predictor.scales, is_blended=is_blended)
    labels = np.empty(image.size[::-1], np.uint8)
    confidence = np.empty(labels.shape, np.float32) if with_confidence else None
    reduce = functools.partial(
        labels_and_confidence, are_logits=predictor.has_single_view, with_confidence=with_confidence
    )
    for where, found in blended(predictor, reduce, image, rows, columns):
        for target, values in zip((labels, confidence), found, strict=True):
            if target is not None:
                target[where] = values[0].cpu().numpy()
    return labels, confidence


def blended(
    predict: Callable[[Tensor], Tensor],
    reduce: Callable[[Tensor], Result],
    image: Image.Image,
    rows: Sequence[Span],
    columns: Sequence[Span],
) -> Iterator[tuple[tuple[slice, slice], Result]]:
    """(rows and columns, `reduce` of the scores [1, K, h, w] there), each pixel of an RGB `image` once.

    `predict`: uint8 [1, 3, H, W] -> scores [1, K, H, W], which are written to. In the pixels that windows share, scores
    are averaged with weights that fall linearly towards the end of a window.
    """
    blend = Blend(rows, columns)
    for row, column in itertools.product(range(len(rows)), range(len(columns))):
        where = (slice(rows[row].begin, rows[row].done), slice(columns[column].begin, columns[column].done))
        # No name holds the scores while those of the next window are computed
        yield where, reduce(blend.finish(predict(pixels(image, rows[row], columns[column])), row, column))


class Blend:
    """The weighted sums of the scores where windows share pixels, for windows that come row by row."""

    def __init__(self, rows: Sequence[Span], columns: Sequence[Span]):
        self.rows, self.columns = rows, columns
        self.row_fades, self.column_fades = fades(rows), fades(columns)
        self.above = self.left = None  # scores [1, K, fade, W] and [1, K, h, fade] that wait for their other windows

    def finish(self, scores: Tensor, row: int, column: int) -> Tensor:
        """The scores [1, K, H, W] of a window -> those [1, K, h, w] of the pixels that no later window adds to."""
        y, x = self.rows[row], self.columns[column]
        scores = scores[..., y.begin - y.start : y.end - y.start, x.begin - x.start : x.end - x.start]
        fade(scores, 2, self.row_fades[row], y.end - y.done)
        fade(scores, 3, self.column_fades[column], x.end - x.done)
        if count := self.column_fades[column]:
            scores[..., :count] += self.left
        self.left = scores[..., x.done - x.begin :].clone()
        scores = scores[..., : x.done - x.begin]
        if count := self.row_fades[row]:
            scores[..., :count, :] += self.above[..., x.begin : x.done]
        if y.end > y.done:
            if self.above is None:
                self.above = scores.new_empty(*scores.shape[:2], y.end - y.done, self.columns[-1].end)
            self.above[..., x.begin : x.done] = scores[..., y.done - y.begin :, :]
        return scores[..., : y.done - y.begin, :]


def fades(spans: Sequence[Span]) -> list[int]:
    """How many pixels each window shares with the one before it."""
    return [0, *(before.end - after.begin for before, after in itertools.pairwise(spans))]


def fade(scores: Tensor, axis: int, num_first: int, num_last: int) -> None:
    """Weight the first and the last pixels of `scores` along `axis` in place, rising and falling between 0 and 1."""
    for count, start, is_rising in ((num_first, 0, True), (num_last, scores.shape[axis] - num_last, False)):
        if count:
            weights = (torch.arange(count, device=scores.device) + 0.5) / count
            weights = weights if is_rising else 1 - weights
            scores.narrow(axis, start, count).mul_(weights.view(-1, *[1] * (3 - axis)))


def pixels(image: Image.Image, row: Span, column: Span) -> Tensor:
    """The window as uint8 [1, 3, H, W]."""
    window = np.array(image.crop((column.start, row.start, column.stop, row.stop)))
    return torch.from_numpy(window).permute(2, 0, 1)[None]
