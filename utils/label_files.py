"""The files that predict.py writes for an image: labels, overlay, scores."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError, writing
from utils.image_files import image_endings


def name_outputs(paths: Iterable[Path] | Mapping[Path, Path], folder: Path) -> dict[Path, Path]:
    """Image -> label file in `folder`; every file that is written has a name of its own.

    `paths` may give each image the folder below `folder` for its files. A name that is taken gets the image's ending
    (x.jpg: x.png; x.bmp: x_bmp.png), else a number. Raises UserError if an image would be overwritten.
    """
    below = paths if isinstance(paths, Mapping) else dict.fromkeys(paths, Path())
    targets, taken = {}, set()
    for path, parent in below.items():
        candidates = (outputs(folder / parent / f"{name}.png") for name in names(path))
        files = next(files for files in candidates if taken.isdisjoint(map(without_case, files)))
        taken.update(map(without_case, files))
        targets[path.absolute()] = files[0]
    images = {path.resolve() for path in targets}
    written = (file.resolve() for target in targets.values() for file in outputs(target))
    if clash := next((file for file in written if file in images), None):
        raise UserError(f"{clash} is an image to label and would be overwritten: give another `out`")
    return targets


def without_case(path: Path) -> str:
    """Equal for names that are one file on macOS and Windows."""
    return str(path).casefold()


def names(path: Path) -> Iterator[str]:
    """Names for the files of an image, without ending, the best first. Of x.png.jpg they begin with x."""
    endings, stem = image_endings(), path.stem
    while Path(stem).suffix.lower() in endings:
        stem = Path(stem).stem
    yield stem
    yield f"{stem}_{path.suffix[1:] or 2}"
    yield from (f"{stem}_{number}" for number in count(2))


def outputs(target: Path) -> tuple[Path, Path, Path]:
    """The files of an image: labels, overlay, scores."""
    return target, target.with_name(f"{target.stem}_overlay.png"), target.with_name(f"{target.stem}_scores.png")


def write_images(images: Mapping[Path, Image.Image]) -> None:
    """Save images by path, in folders that are made. Raises UserError if that fails."""
    for path, image in images.items():
        with writing(path.parent, "give another `out`"):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)


def score_image(scores: np.ndarray) -> Image.Image:
    """Probabilities [H, W] in 0..1 as a gray image."""
    return Image.fromarray((255 * scores).round().astype(np.uint8))
