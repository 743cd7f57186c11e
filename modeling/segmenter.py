"""Label images from Python, with a trained network.

from predict import Segmenter
result = Segmenter("model_best.pth.tar")("image.jpg")
result.labels, result.scores, result.classes, result.overlay()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling.pretrained.loaded_model import LoadedModel, load_model
from utils.distributed.device import resolve_amp, select_device
from utils.errors import UserError
from utils.images import find_transpose, open_image, to_rgb
from utils.inference import Predictor, default_stride, require_no_gaps
from utils.palettes import Palette, palette_image
from utils.scoring.visualize import overlay


@dataclass(frozen=True)
class Segmentation:
    """A labeled image. `image`: RGB, upright. `labels`: class numbers, uint8 [H, W]. `scores`: the probability of that
    class, float32 [H, W] in 0..1. `classes` and `palette`: by class number.
    """

    image: Image.Image
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    palette: Palette

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """The image with the classes' colors over it, and a legend of the classes in it."""
        return overlay(np.asarray(self.image), self.labels, self.classes, self.palette, opacity=opacity)

    def label_image(self) -> Image.Image:
        """`labels` as a palette image."""
        return palette_image(self.labels, self.palette)


class Segmenter:
    """Labels images with a trained network.

    `checkpoint`: a file of train.py, or the result of `modeling.pretrained.loaded_model.load_model`, which explains
    `weights_from`, `network` (for weights without a description) and `out_stride`. `device`: auto, cpu, cuda or mps.
    `amp`: off, bf16, fp16, or auto for bf16 on a GPU that computes in it.
    `scales`, `flip`, `window` and `stride`: see `utils.inference.Predictor`; one number stands for both sides.
    Raises UserError for a file, device or window that cannot be used.
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
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
    ):
        torch_device, sides = select_device(device), window_sides(window, stride)
        if isinstance(checkpoint, LoadedModel):
            loaded = checkpoint
        else:
            loaded = load_model(checkpoint, weights_from=weights_from, network=network, out_stride=out_stride)
        self.classes, self.palette = loaded.classes, loaded.palette
        views = {"amp": resolve_amp(amp, torch_device), "scales": scales, "flip": flip} | sides
        self.predictor = Predictor(loaded.model.to(torch_device), torch_device, **views)

    def __call__(self, image: Image.Image | np.ndarray | str | Path) -> Segmentation:
        """Label an image: a path, a PIL image, or an array uint8 [H, W, 3] or [H, W]. EXIF orientation is applied.

        Raises UserError for anything else, and for images with more than 8 bits a channel.
        """
        return self.label(to_rgb_image(image))

    def label(self, image: Image.Image) -> Segmentation:
        """Label an RGB image that is upright."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # uint8 [1, 3, H, W]
        scores, labels = self.predictor.probabilities(pixels)[0].max(0)  # [K, H, W] -> [H, W], [H, W]
        labels = labels.to(torch.uint8).cpu().numpy()  # on the device first: an eighth of the bytes to copy
        return Segmentation(image, labels, scores.float().cpu().numpy(), self.classes, self.palette)


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


def to_rgb_image(image: Image.Image | np.ndarray | str | Path) -> Image.Image:
    """RGB and upright, as training reads images. Raises UserError for anything but an image with 8 bits a channel."""
    if isinstance(image, str | Path):
        stored, turn = open_image(Path(image))
    elif isinstance(image, Image.Image) and all(image.size):
        stored, turn = to_rgb(image, getattr(image, "filename", "") or "the image"), find_transpose(image)
    elif isinstance(image, np.ndarray) and is_image_array(image):
        stored, turn = to_rgb(Image.fromarray(image), "the array"), None
    else:
        raise UserError(
            f"{describe(image)} is no image: give a path, a PIL image, or a NumPy array uint8 [H, W, 3] or [H, W]"
        )
    upright = stored if turn is None else stored.transpose(turn)
    # From the pixels, since a copy of the EXIF orientation would be applied again
    return Image.fromarray(np.asarray(upright))


def is_image_array(array: np.ndarray) -> bool:
    """Whether it is uint8 [H, W, 3] or [H, W], with at least one pixel."""
    return array.dtype == np.uint8 and array.size > 0 and (array.ndim == 2 or array.shape[2:] == (3,))


def describe(image: object) -> str:
    """The type and size of `image`, for an error message."""
    if isinstance(image, Image.Image):
        return f"a PIL image of {image.width}x{image.height}"
    if isinstance(image, np.ndarray | torch.Tensor):
        return f"{type(image).__name__} {image.dtype} [{', '.join(map(str, image.shape))}]"
    return type(image).__name__
