"""From a uint8 image to class scores of its own size: whole or in windows, at one or several scales, with flips."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.distributed.device import autocast
from utils.errors import UserError
from utils.geometry import resize, scaled_side
from utils.labels import scores_to_labels
from utils.strips import ResizedMap, RowMap, TensorMap, UpsampledMap


class Normalize:
    """uint8 [B, 3, H, W] -> float32 of zero mean and unit variance, by the `mean` and `std` (RGB, values in 0..1) of
    the images that the network's weights were trained on.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"):
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1) * 255
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1) * 255

    def __call__(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class Predictor:
    """`uint8 [B, 3, H, W] -> scores [B, K, H, W]` of a network, on `device`.

    A single view of the image gives logits. Several views (`scales`, `flip`) give the mean of their softmax, as in the
    paper. They are computed in strips of rows, so that the logits of a view never exist whole unless there are windows.
    With `window` (height, width) and `stride` (down, across) each view is cut into overlapping windows whose
    logits are averaged; with `window` None it is passed whole. `amp` (off, bf16 or fp16): the network computes in mixed
    precision; the scores are float32.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        amp: str = "off",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: tuple[int, int] | None = None,
        stride: tuple[int, int] | None = None,
    ):
        self.model, self.device, self.amp = model.eval(), device, amp
        self.normalize = Normalize(model.mean, model.std, device)
        self.scales, self.flip, self.window, self.stride = tuple(scales), flip, window, stride

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        return self.scores(image).whole()

    @torch.no_grad()
    def strips(self, image: Tensor) -> Iterator[Tensor]:
        """The same scores as of `__call__`, bit for bit, in strips of rows [B, K, h, W] from top to bottom."""
        for _, scores in self.scores(image).strips():
            yield scores

    def labels(self, image: Tensor) -> Tensor:
        """uint8 [B, H, W]."""
        return torch.cat([scores_to_labels(scores) for scores in self.strips(image)], 1)

    def scores(self, image: Tensor) -> RowMap:
        image = self.normalize(image.to(self.device, non_blocking=True))
        return self.logits(image) if self.has_single_view else TensorMap(self.mean_probabilities(image))

    def mean_probabilities(self, image: Tensor) -> Tensor:
        """[B, K, H, W], over the views of a normalized image."""
        views = [(scale, is_flipped) for scale in self.scales for is_flipped in (False, True)[: 1 + self.flip]]
        total = None
        for scale, is_flipped in views:
            view = self.view_logits(image, scale, is_flipped)
            total = image.new_zeros(view.shape) if total is None else total
            for rows, logits in view.strips():
                total[:, :, rows] += logits.flip(-1).softmax(1) if is_flipped else logits.softmax(1)
        return total.div_(len(views))

    @property
    def has_single_view(self) -> bool:
        """Whether the only view is the image itself: then the scores are logits, else probabilities."""
        return self.scales == (1.0,) and not self.flip

    def probabilities(self, image: Tensor) -> Tensor:
        """As `__call__`, but always probabilities."""
        return self(image).softmax(1) if self.has_single_view else self(image)

    def view_logits(self, image: Tensor, scale: float, is_flipped: bool) -> RowMap:
        """Logits [B, K, H, W] at the size of the normalized `image`, of its view at `scale`, mirrored or not."""
        size = image.shape[-2:]
        if scale != 1:
            image = resize(image, tuple(scaled_side(side, scale) for side in size))
        logits = self.logits(image.flip(-1) if is_flipped else image)
        return logits if scale == 1 else ResizedMap(logits, size)

    def logits(self, image: Tensor) -> RowMap:
        """Logits [B, K, H, W] of a normalized image, whole or in windows."""
        with autocast(self.amp, self.device):
            if self.window is None:
                return upsampled_logits(self.model, image, output_stride=self.model.output_stride)
            return TensorMap(
                sliding_window_logits(
                    self.model, image, window=self.window, stride=self.stride, output_stride=self.model.output_stride
                )
            )


def default_stride(window: Sequence[int]) -> tuple[int, ...]:
    """Two thirds of a window (height, width): neighbors overlap by a third."""
    return tuple(max(1, side * 2 // 3) for side in window)


def require_no_gaps(stride: Sequence[int], window: Sequence[int]) -> None:
    """Raise UserError if windows (height, width) at a distance of `stride` (down, across) leave out pixels."""
    if any(step > side for step, side in zip(stride, window, strict=True)):
        raise UserError(
            f"`stride` {stride[0]} {stride[1]} leaves gaps between windows of {window[0]}x{window[1]}: lower it"
        )


def whole_image_logits(model: Callable[[Tensor], Tensor], image: Tensor, *, output_stride: int) -> Tensor:
    """Normalized [B, 3, H, W] -> logits [B, K, H, W] in one forward pass.

    The image is padded right and bottom with the mean color to k * output_stride + 1, where the geometry of
    `align_corners=True` is exact, and the logits are cropped back.
    """
    height, width = image.shape[-2:]
    return model(pad(image, output_stride))[..., :height, :width]


def upsampled_logits(model: nn.Module, image: Tensor, *, output_stride: int) -> RowMap:
    """As `whole_image_logits`, upsampled in strips if the network is one that leaves it to its caller."""
    if not hasattr(model, "low_resolution_logits"):
        return TensorMap(whole_image_logits(model, image, output_stride=output_stride))
    padded = pad(image, output_stride)
    return UpsampledMap(model(padded, upsample=False), padded.shape[-2:], image.shape[-2:])


def pad(image: Tensor, output_stride: int) -> Tensor:
    padding = [-(side - 1) % output_stride for side in image.shape[-2:]]
    return F.pad(image, (0, padding[1], 0, padding[0]))  # 0 is the mean color of a normalized image


def sliding_window_logits(
    model: Callable[[Tensor], Tensor],
    image: Tensor,
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    output_stride: int,
) -> Tensor:
    """Normalized [B, 3, H, W] -> logits [B, K, H, W]: for each pixel the mean over the windows that contain it.

    The last window of a row or column ends with the image. A window as large as the image is one forward pass.
    """
    total, height, width = None, *image.shape[-2:]
    counts = image.new_zeros(height, width)
    for rows in windows(height, window[0], stride[0]):
        for columns in windows(width, window[1], stride[1]):
            logits = whole_image_logits(model, image[..., rows, columns], output_stride=output_stride)
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], height, width)
            total[..., rows, columns] += logits
            counts[rows, columns] += 1
    return total.div_(counts)


def windows(side: int, window: int, stride: int) -> Iterator[slice]:
    """Slices of at most `window` pixels that cover `side` pixels, `stride` apart; the last one ends with the side."""
    last = max(side - window, 0)
    for start in range(0, last + stride, stride):
        start = min(start, last)
        yield slice(start, min(start + window, side))
        if start == last:
            return
