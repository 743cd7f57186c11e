"""Label pictures: class PNGs with palette, and overlays with a legend, at each picture's own size.

python predict.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar holiday/ --out labelled
"""

import argparse
import glob
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import options
import scoring_options
from dataloaders import class_names
from dataloaders.samples import init_worker
from dataloaders.voc import PICTURE_ENDINGS
from errors import UserError
from segmenter import Segmentation, Segmenter, to_picture
from trained import load_trained
from utils.device import select_device
from utils.inference import Predictor
from utils.progress import progress

__all__ = ["Segmentation", "Segmenter", "main", "to_picture"]

PROTOCOLS = ("whole", "slide")


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
