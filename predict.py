"""Label pictures: class PNGs with palette, and overlays with a legend, at each picture's own size.

python predict.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar holiday/ --out labelled

    from predict import Segmenter
    result = Segmenter("model_best.pth.tar")("picture.jpg")
    result.labels, result.scores, result.classes, result.overlay()
"""

import argparse
import glob
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import options
import scoring_options
from dataloaders import class_names
from dataloaders.pairs import find_turn, open_picture, to_rgb
from dataloaders.palettes import palette_image
from dataloaders.samples import init_worker
from dataloaders.voc import PICTURE_ENDINGS
from errors import UserError
from trained import Palette, Trained, load_trained
from utils.device import select_device
from utils.inference import Predictor, default_stride
from utils.progress import progress
from utils.visualize import overlay

PROTOCOLS = ("whole", "slide")


@dataclass(frozen=True)
class Segmentation:
    """A labelled picture: `image` as RGB, upright; `labels` uint8 [H, W], class numbers; `scores` float32 [H, W], the
    probability of that class, 0..1; `classes` and `palette` by class number.
    """

    image: Image.Image
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    palette: Palette

    def overlay(self, opacity: float = 0.6) -> Image.Image:
        """The classes' colours over the picture, of its size, with a legend of the classes seen."""
        return overlay(np.asarray(self.image), self.labels, self.classes, self.palette, opacity=opacity)

    def label_image(self) -> Image.Image:
        """`labels` as a palette image."""
        return palette_image(self.labels, self.palette)


class Segmenter:
    """A trained network for pictures from anywhere.

    `checkpoint`: a file of train.py, or any weights of docs/weights.md with `network` saying what they are of (see
    `trained.load_trained`). `scales`, `flip`, `window` and `stride`: see `utils.inference.Predictor`; one number stands
    for both sides. Raises UserError for a file, device or window that does not serve.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        *,
        weights_from: str | None = None,
        network: Mapping | None = None,
        out_stride: int | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
    ):
        place, sides = select_device(device), window_sides(window, stride)
        trained = load_trained(checkpoint, weights_from=weights_from, network=network, out_stride=out_stride)
        predictor = Predictor(trained.model.to(place), place, scales=scales, flip=flip, **sides)
        self.predictor, self.classes, self.palette = predictor, trained.classes, trained.palette

    @classmethod
    def of(cls, trained: Trained, predictor: Predictor) -> "Segmenter":
        """From parts that are there already."""
        segmenter = cls.__new__(cls)
        segmenter.predictor, segmenter.classes, segmenter.palette = predictor, trained.classes, trained.palette
        return segmenter

    def __call__(self, image: Image.Image | np.ndarray | str | Path) -> Segmentation:
        """Label a picture: a path, a PIL image, or uint8 [H, W, 3] or [H, W]; EXIF turns are made.

        Raises UserError for anything else, and for more than 8 bits a channel.
        """
        return self.label(to_picture(image))

    def label(self, picture: Image.Image) -> Segmentation:
        """The same of a picture that is RGB and upright."""
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]  # [1, 3, H, W]
        scores, labels = self.predictor.probabilities(pixels)[0].max(0)
        labels = labels.to("cpu", torch.uint8).numpy()
        return Segmentation(picture, labels, scores.float().cpu().numpy(), self.classes, self.palette)


def window_sides(window: int | Sequence[int] | None, stride: int | Sequence[int] | None) -> dict:
    """Both as (height, width). Raises UserError for what are no sides, and for gaps between windows."""
    if window is None:
        if stride is not None:
            raise UserError(f"stride {stride} is from one window to the next: give window too, or leave it out")
        return {}
    window = two_numbers(window, "window")
    stride = default_stride(window) if stride is None else two_numbers(stride, "stride")
    scoring_options.require_no_gaps(stride, window, "stride")
    return {"window": window, "stride": stride}


def two_numbers(value: int | Sequence[int], name: str) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"{name} {value!r}: give a whole number above 0, or two (height, width)")
    return sides


def to_picture(image: Image.Image | np.ndarray | str | Path) -> Image.Image:
    """RGB and upright, as the training data are read. Raises UserError for what is no picture of 8 bits a channel."""
    if isinstance(image, str | Path):
        stored, turn = open_picture(Path(image))
    elif isinstance(image, Image.Image) and all(image.size):
        stored, turn = to_rgb(image, getattr(image, "filename", "") or "the picture"), find_turn(image)
    elif isinstance(image, np.ndarray) and is_picture(image):
        stored, turn = to_rgb(Image.fromarray(image), "the array"), None
    else:
        raise UserError(
            f"{describe(image)} is no picture: give a path, a PIL image, or a NumPy array uint8 [H, W, 3] or [H, W]"
        )
    upright = stored if turn is None else stored.transpose(turn)
    return Image.fromarray(
        np.asarray(upright)
    )  # the pixels alone: an EXIF that went along would ask for the turn again


def is_picture(array: np.ndarray) -> bool:
    """uint8 [H, W, 3] or [H, W], at least a pixel."""
    return array.dtype == np.uint8 and array.size > 0 and (array.ndim == 2 or array.shape[2:] == (3,))


def describe(image: object) -> str:
    """One that is no picture, in a few words."""
    if isinstance(image, Image.Image):
        return f"a PIL image of {image.width}x{image.height}"
    if isinstance(image, np.ndarray | torch.Tensor):
        return f"{type(image).__name__} {image.dtype} [{', '.join(map(str, image.shape))}]"
    return f"{type(image).__name__}"


class Pictures(Dataset):
    """(path, picture) by number; (path, the error's line) where it cannot be read."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Image.Image | str]:
        try:
            return self.paths[index], to_picture(self.paths[index])
        except UserError as error:
            return self.paths[index], error.line()


def main(argv: Sequence[str] | None = None) -> int:
    args, given = options.parse(make_parser(), argv)
    return options.run_command(lambda: predict(args, given))


def make_parser() -> argparse.ArgumentParser:
    parser = options.Parser(prog="predict.py", description="Label pictures.", formatter_class=options.DefaultsFormatter)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE|FOLDER|GLOB", help="what to label")
    parser.add_argument("--out", metavar="DIR", required=True, help="for <name>.png and <name>_overlay.png")
    parser.add_argument("--scores", action="store_true", help="also <name>_scores.png, the confidence as grey 0..255")
    scoring_options.add_source_flags(
        parser, checkpoint_help="of a training run, or any weights that docs/weights.md names"
    )
    scoring_options.add_inference_flags(
        parser, protocols=PROTOCOLS, protocol_help="whole pictures, or windows of --crop-size"
    )
    names = parser.add_argument_group("names and colours of the classes, where the weights have none")
    names.add_argument(
        "--dataset", choices=options.DATASETS, help="take this data set's (default: VOC's or Cityscapes')"
    )
    names.add_argument("--data-root", metavar="DIR", help="its folder, where folder's classes.txt lies")
    options.add_device_flags(parser.add_argument_group("where"))
    return parser


def predict(args: argparse.Namespace, given: set[str]) -> int:
    """Label every picture; those that cannot be read are named at the end, and make the exit status 2."""
    targets = name_outputs(list(find_pictures(args.pictures)), Path(args.out))
    device = select_device(args.device)
    trained = load_trained(
        args.checkpoint, weights_from=args.weights_from, network=scoring_options.network_flags(args, given),
        out_stride=args.out_stride, names=class_names(args.dataset, args.data_root) if args.dataset else None,
        is_partial=args.partial_weights,
    )  # fmt: skip
    how = scoring_options.windows(args, trained.config.get("crop_size"), PROTOCOLS)
    predictor = Predictor(
        trained.model.to(device), device, scales=args.scales, flip=args.flip, window=how.get("crop_size"),
        stride=how.get("stride"),
    )  # fmt: skip
    segmenter = Segmenter.of(trained, predictor)
    loader = DataLoader(
        Pictures(list(targets)),
        batch_size=None,
        num_workers=min(args.workers, len(targets)),
        worker_init_fn=init_worker,
    )
    broken = []
    for path, picture in progress("pictures", 0, len(targets), iterable=loader, unit="picture"):
        if isinstance(picture, str):
            broken.append(picture)
        else:
            write(segmenter.label(picture), targets[path], with_scores=args.scores)
    print(f"{len(targets) - len(broken)} pictures labelled in {args.out}")
    for line in broken[:-1]:
        print(line, file=sys.stderr)
    if broken:
        raise UserError(f"{len(broken)} of {len(targets)} pictures not labelled: {broken[-1]}")
    return 0


def find_pictures(arguments: Sequence[str]) -> Iterator[Path]:
    """The files that are named, those in folders by their ending, those that patterns match."""
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURE_ENDINGS)
        elif path.is_file():
            found = [path]
        else:
            found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise UserError(f"{argument} is no picture, no folder with pictures, and matches none: correct it")
        yield from found


def name_outputs(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Picture -> label file in `folder`, such that no two files that are written for the pictures are the same.

    Raises UserError where a picture itself would be overwritten.
    """
    targets, taken = {}, set()
    for path in dict.fromkeys(path.absolute() for path in paths):
        names = chain((path.stem, path.name), (f"{path.name}-{number}" for number in count(1)))
        files = next(files for name in names if taken.isdisjoint(files := outputs(folder / f"{name}.png")))
        taken.update(files)
        targets[path] = files[0]
    pictures = {path.resolve() for path in targets}
    if clash := {file.resolve() for file in taken} & pictures:
        raise UserError(f"{clash.pop()} is a picture to label and would be overwritten: give another --out")
    return targets


def outputs(target: Path) -> tuple[Path, Path, Path]:
    """The files of a picture: labels, overlay, scores."""
    return target, target.with_name(f"{target.stem}_overlay.png"), target.with_name(f"{target.stem}_scores.png")


def write(result: Segmentation, target: Path, *, with_scores: bool) -> None:
    labels, overlaid, scores = outputs(target)
    images = {labels: result.label_image(), overlaid: result.overlay()}
    if with_scores:
        images[scores] = Image.fromarray((255 * result.scores).round().astype(np.uint8))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path, image in images.items():
            image.save(path)
    except OSError as error:
        raise UserError(f"cannot write into {target.parent} ({error.strerror or error}): give another --out") from error


if __name__ == "__main__":
    sys.exit(main())
