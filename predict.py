"""Label images: class PNGs with palette, and overlays with a legend, at the native size of each image.

python predict.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar holiday/ --out labels
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

from config.inference_flags import add_inference_flags, add_source_flags, network_flags, window_flags
from config.train_flags import add_device_flags
from dataloaders import DATASETS, class_names
from dataloaders.loaders import init_worker
from dataloaders.voc import IMAGE_SUFFIXES
from modeling.pretrained.loaded_model import load_model
from modeling.segmenter import Segmentation, Segmenter, to_rgb_image
from utils.errors import UserError, writing
from utils.flags import DefaultsFormatter, Parser, parse, run_command
from utils.progress import progress

__all__ = ["Segmentation", "Segmenter", "main", "to_rgb_image"]

PROTOCOLS = ("whole", "slide")


class ImageFiles(Dataset):
    """(path, image) by index; (path, the line of the error) where it cannot be read."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, Image.Image | str]:
        try:
            return self.paths[index], to_rgb_image(self.paths[index])
        except UserError as error:
            return self.paths[index], error.line()


def main(argv: Sequence[str] | None = None) -> int:
    args, given = parse(make_parser(), argv)
    return run_command(lambda: predict(args, given))


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="predict.py", description="Label images.", formatter_class=DefaultsFormatter)
    parser.add_argument("images", nargs="+", metavar="IMAGE|FOLDER|GLOB", help="what to label")
    parser.add_argument("--out", metavar="DIR", required=True, help="for <name>.png and <name>_overlay.png")
    parser.add_argument("--scores", action="store_true", help="also <name>_scores.png, the confidence as gray 0..255")
    add_source_flags(parser)
    add_inference_flags(parser, protocols=PROTOCOLS, protocol_help="whole images, or windows of --crop-size")
    names = parser.add_argument_group("names and colors of the classes, if the weights have none")
    names.add_argument("--dataset", choices=DATASETS, help="take this dataset's (default: VOC's or Cityscapes')")
    names.add_argument("--data-root", metavar="DIR", help="its folder, where folder's classes.txt lies")
    names.add_argument("--context-background", action="store_true", help="context: the background is a class")
    add_device_flags(parser.add_argument_group("device"))
    return parser


def predict(args: argparse.Namespace, given: set[str]) -> int:
    """Label every image; those that cannot be read are named at the end, and make the exit status 2."""
    targets = name_outputs(list(find_images(args.images)), Path(args.out))
    names = None
    if args.dataset:
        names = class_names(args.dataset, args.data_root, context_background=args.context_background)
    loaded = load_model(
        args.checkpoint, weights_from=args.weights_from, network=network_flags(args, given),
        out_stride=args.out_stride, names=names, is_partial=args.partial_weights,
    )  # fmt: skip
    how = window_flags(args, loaded.config.get("crop_size"), PROTOCOLS)
    segmenter = Segmenter(
        loaded, args.device, amp=args.amp, scales=args.scales, flip=args.flip, window=how.get("crop_size"),
        stride=how.get("stride"),
    )  # fmt: skip
    loader = DataLoader(
        ImageFiles(list(targets)),
        batch_size=None,
        num_workers=min(args.workers, len(targets)),
        worker_init_fn=init_worker,
    )
    broken = []
    for path, image in progress("images", 0, len(targets), iterable=loader, unit="image"):
        if isinstance(image, str):
            broken.append(image)
        else:
            write(segmenter.label(image), targets[path], with_scores=args.scores)
    print(f"{len(targets) - len(broken)} images labeled in {args.out}")
    for line in broken[:-1]:
        print(line, file=sys.stderr)
    if broken:
        raise UserError(f"{len(broken)} of {len(targets)} images not labeled: {broken[-1]}")
    return 0


def find_images(arguments: Sequence[str]) -> Iterator[Path]:
    """The named files, the files in folders that end like images, and the files that match a pattern."""
    for argument in arguments:
        path = Path(argument).expanduser()
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            found = [path]
        else:
            found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise UserError(f"{argument} is not an image or a folder with images, and matches no file: correct it")
        yield from found


def name_outputs(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Image -> label file in `folder`; every file that is written has a name of its own.

    Raises UserError if an image would be overwritten.
    """
    targets, taken = {}, set()
    for path in dict.fromkeys(path.absolute() for path in paths):
        names = chain((path.stem, path.name), (f"{path.name}-{number}" for number in count(1)))
        files = next(files for name in names if taken.isdisjoint(files := outputs(folder / f"{name}.png")))
        taken.update(files)
        targets[path] = files[0]
    images = {path.resolve() for path in targets}
    if clash := {file.resolve() for file in taken} & images:
        raise UserError(f"{clash.pop()} is an image to label and would be overwritten: give another --out")
    return targets


def outputs(target: Path) -> tuple[Path, Path, Path]:
    """The files of an image: labels, overlay, scores."""
    return target, target.with_name(f"{target.stem}_overlay.png"), target.with_name(f"{target.stem}_scores.png")


def write(result: Segmentation, target: Path, *, with_scores: bool) -> None:
    labels, overlaid, scores = outputs(target)
    images = {labels: result.label_image(), overlaid: result.overlay()}
    if with_scores:
        images[scores] = Image.fromarray((255 * result.scores).round().astype(np.uint8))
    with writing(target.parent, "give another --out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        for path, image in images.items():
            image.save(path)


if __name__ == "__main__":
    sys.exit(main())
