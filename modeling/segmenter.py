"""Label images from Python, with a trained network.

from predict import Segmenter
segmenter = Segmenter("model_best.pth.tar")
result = segmenter("image.jpg")
result.labels, result.scores, result.classes, result.overlay()
for result in segmenter.stream("holiday/"): ...
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modeling.inputs import InputImage, is_one_image, read_images, to_rgb_image
from modeling.pretrained.loaded_model import LoadedModel, load_model
from utils.distributed.device import resolve_amp, select_device
from utils.errors import UserError
from utils.inference import default_stride, require_no_gaps
from utils.labels import labels_and_confidence
from utils.large_images import describe_windows, is_large, label_in_windows
from utils.palettes import Palette, palette_image
from utils.progress import print_above_bar
from utils.scoring.visualize import drawn_pixels, overlay, png

__all__ = ["Segmentation", "Segmenter", "to_rgb_image"]

NOTEBOOK_SIDE = 1024  # pixels; a notebook stores what it shows
LOOKAHEAD = 4  # batches among whose images those of equal size are put together


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """A labeled image. `image`: RGB, upright. `labels`: class numbers, uint8 [H, W]. `scores`: the probability of that
    class, float32 [H, W] in 0..1; None if the segmenter computes none. `classes` and `palette`: by class number.
    `path`: the file of the image, if it was one. A notebook shows the overlay.
    """

    image: Image.Image
    labels: np.ndarray
    scores: np.ndarray | None
    classes: tuple[str, ...]
    palette: Palette
    path: Path | None = None

    def overlay(self, opacity: float = 0.6, legend: Iterable[int] | None = None) -> Image.Image:
        """The image with the classes' colors over it, and a legend in it: of the classes drawn, or those given."""
        pixels = np.asarray(self.image)
        return overlay(pixels, self.labels, self.classes, self.palette, opacity=opacity, named=legend)

    def drawn_classes(self) -> list[int]:
        """The numbers of the classes that the overlay draws: those in `labels`, without the background."""
        return np.unique(self.labels[drawn_pixels(self.labels, self.classes)]).tolist()

    def label_image(self) -> Image.Image:
        """`labels` as a palette image."""
        return palette_image(self.labels, self.palette)

    def __repr__(self) -> str:
        """Size, and the largest classes."""
        shares = np.bincount(self.labels.ravel(), minlength=len(self.classes)) / self.labels.size
        largest = [number for number in np.argsort(-shares, kind="stable")[:5] if shares[number]]
        classes = ", ".join(f"{self.classes[number]} {shares[number]:.1%}" for number in largest)
        return f"<Segmentation {self.path or 'of an image'}, {self.image.width}x{self.image.height}: {classes}>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay, at most `NOTEBOOK_SIDE` wide and high."""
        shown = self.overlay()
        shown.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        return png(shown)


class Segmenter:
    """Labels images with a trained network; several threads may use it at once.

    `checkpoint`: a file of train.py or export.py (.onnx), or the result of
    `modeling.pretrained.loaded_model.load_model`, which explains `weights_from`, `network` (for weights without a
    description), `out_stride` and `is_partial`.
    `device`: auto, cpu, cuda or mps.
    `amp`: the network's precision: off (float32), bf16, fp16 (half), or auto for bf16 on a GPU that computes in it.
    `scales`, `flip`, `window` and `stride`: see `utils.inference.Predictor`; one number stands for both sides.
    `whole`: True passes images of any size in one piece. By default one whose largest view (of `scales`) has more than
    2048 x 1024 pixels is labeled in overlapping windows of 1025x1025 (`utils.large_images`), and a note says so once; a
    graph of one size takes it whole.
    `batch_size`: images of equal size that are computed together. `scores`: False saves the softmax.
    Raises UserError for a file or argument that cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | Path | LoadedModel | None = None,
        device: str = "auto",
        *,
        amp: str = "auto",
        weights_from: str | None = None,
        network: Mapping | None = None,
        out_stride: int | None = None,
        is_partial: bool = False,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        whole: bool = False,
        batch_size: int = 1,
        scores: bool = True,
    ):
        torch_device, sides = select_device(device), window_sides(window, stride)
        if whole and window is not None:
            raise UserError(f"`whole` and `window` {window} are two ways to take an image: leave one out")
        self.batch_size, self.with_scores = whole_number(batch_size, "batch_size"), scores
        views = {"scales": scale_factors(scales), "flip": flip} | sides
        resolve_amp(amp, torch_device)  # an unknown name is an error before anything is loaded
        if isinstance(checkpoint, LoadedModel):
            loaded = checkpoint
        else:
            loaded = load_model(
                checkpoint, weights_from=weights_from, network=network, out_stride=out_stride, is_partial=is_partial
            )
        self.classes, self.palette = loaded.classes, loaded.palette
        self.predictor = loaded.predictor(torch_device, amp=amp, **views)
        self.splits_large = not whole and window is None and not loaded.has_fixed_size
        self.is_blended = not loaded.gives_labels  # there is no average of labels
        self.noted = False

    def __call__(self, images: object) -> Segmentation | list[Segmentation]:
        """Label an image, or several: a Segmentation, or a list of them in the same order.

        An image is a path, an open file, the bytes of a file, a PIL image, an array [H, W, 3], [H, W, 4], [H, W, 1] or
        [H, W], or a tensor [3, H, W], [4, H, W], [1, H, W] or [H, W]; arrays and tensors are uint8 or float in 0..1.
        EXIF orientation is applied, transparency dropped. Several are an iterable of images, a folder (its images by
        name, without those of folders below), or an array or tensor with a dimension before those of an image.
        Raises UserError for anything else, and for images with more than 8 bits a channel.
        """
        results = self.stream(images)
        return next(results) if is_one_image(images) else list(results)

    def stream(self, images: object) -> Iterator[Segmentation]:
        """As `__call__`, one after the other: reads an image only when the ones before are labeled."""
        return self.label_all(read_images(images))

    def label(self, image: Image.Image) -> Segmentation:
        """Label an RGB image that is upright."""
        return next(self.label_all([InputImage(image)]))

    def label_all(self, images: Iterable[InputImage]) -> Iterator[Segmentation]:
        """Label images in their order; with `batch_size` above 1, reads `LOOKAHEAD` batches ahead."""
        images, ahead = iter(images), self.batch_size * LOOKAHEAD if self.batch_size > 1 else 1
        while chunk := list(islice(images, ahead)):
            results: dict[int, Segmentation] = {}
            for numbers in equal_size_batches(chunk, self.batch_size):
                results |= zip(numbers, self.label_batch([chunk[number] for number in numbers]), strict=True)
            count = len(chunk)
            chunk.clear()  # large images must not live until the next ones are read
            yield from (results.pop(number) for number in range(count))

    def label_batch(self, images: Sequence[InputImage]) -> list[Segmentation]:
        """Label images of one size, at once; large ones in windows, one after the other.

        Raises UserError if several do not fit in the memory of the GPU.
        """
        if self.splits_large and is_large(images[0].image.size, self.predictor.scales):
            return [self.label_large(image) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image, _ in images])).permute(0, 3, 1, 2)
        try:
            labels, scores = self.predict(pixels)  # uint8 [B, 3, H, W] -> [B, H, W], [B, H, W]
        except torch.OutOfMemoryError as error:
            if len(images) == 1:
                raise
            size = f"{pixels.shape[-1]}x{pixels.shape[-2]}"
            raise UserError(f"`batch_size`: {len(images)} images of {size} exceed the memory: lower it") from error
        return [
            Segmentation(image, label, score, self.classes, self.palette, path)
            for (image, path), label, score in zip(images, labels, scores, strict=True)
        ]

    def label_large(self, image: InputImage) -> Segmentation:
        """Label one image in windows. The first call prints so."""
        if not self.noted:
            self.noted = True
            print_above_bar(describe_windows(image.image.size, self.predictor.scales))
        labels, scores = label_in_windows(
            self.predictor, image.image, with_confidence=self.with_scores, is_blended=self.is_blended
        )
        return Segmentation(image.image, labels, scores, self.classes, self.palette, image.path)

    def predict(self, pixels: Tensor) -> tuple[np.ndarray, Sequence[np.ndarray | None]]:
        """uint8 [B, 3, H, W] -> labels uint8 [B, H, W], scores float32 [B, H, W] or B times None."""
        how = {"are_logits": self.predictor.has_single_view, "with_confidence": self.with_scores}
        strips = [labels_and_confidence(scores, **how) for scores in self.predictor.strips(pixels)]
        labels = torch.cat([labels for labels, _ in strips], 1).cpu().numpy()
        if not self.with_scores:
            return labels, [None] * len(pixels)
        return labels, torch.cat([scores for _, scores in strips], 1).cpu().numpy()


def equal_size_batches(images: Sequence[InputImage], batch_size: int) -> list[list[int]]:
    """The numbers of the images, in lists of at most `batch_size` whose images have one size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, (image, _) in enumerate(images):
        by_size.setdefault(image.size, []).append(number)
    return [
        numbers[start : start + batch_size]
        for numbers in by_size.values()
        for start in range(0, len(numbers), batch_size)
    ]


def window_sides(window: int | Sequence[int] | None, stride: int | Sequence[int] | None) -> dict:
    """Both as (height, width), by argument of Predictor. Raises UserError for sizes that are not whole numbers above 0,
    and for gaps between windows.
    """
    if window is None:
        if stride is not None:
            raise UserError(f"`stride` {stride} is from one window to the next: give `window` too, or leave it out")
        return {}
    window = two_numbers(window, "window")
    stride = default_stride(window) if stride is None else two_numbers(stride, "stride")
    require_no_gaps(stride, window)
    return {"window": window, "stride": stride}


def two_numbers(value: int | Sequence[int], name: str) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"`{name}` {value!r}: give a whole number above 0, or two (height, width)")
    return sides


def whole_number(value: int, name: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise UserError(f"`{name}` {value!r}: give a whole number above 0")
    return value


def scale_factors(scales: float | Sequence[float]) -> tuple[float, ...]:
    """Raises UserError unless `scales` are numbers above 0; one number is one scale."""
    factors = tuple(scales) if isinstance(scales, Iterable) and not isinstance(scales, str) else (scales,)
    if not factors or not all(isinstance(factor, int | float) and 0 < factor < float("inf") for factor in factors):
        raise UserError(f"`scales` {scales!r}: give numbers above 0, such as (0.75, 1.0, 1.25)")
    return factors
