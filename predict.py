"""Label images and videos: class PNGs with palette, and overlays with a legend, at the native size.

python predict.py --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar holiday/ --out labels
python predict.py --checkpoint model_best.pth.tar --video clip.mp4 --out overlay.mp4
"""

import argparse
import contextlib
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from config.inference_flags import (
    add_inference_flags,
    add_source_flags,
    check_inference_flags,
    network_flags,
    window_flags,
)
from config.train_flags import add_device_flags
from dataloaders import DATASETS, class_names
from utils.errors import UserError
from utils.flags import DefaultsFormatter, Parser, answer_early, parse, positive_int, run_command, with_flags

__all__ = ["Segmentation", "Segmenter", "main", "name_outputs", "outputs", "to_rgb_image"]
PROTOCOLS = ("auto", "whole", "slide")
PROTOCOL_HELP = (
    "auto: whole; above 2048x1024 pixels (at the largest of --scales) in overlapping windows of 1025x1025, which keeps "
    "the memory below 3 GB; whole: in one pass at any size; slide: windows of --crop-size"
)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="predict.py", description="Label images.", formatter_class=DefaultsFormatter)
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE|FOLDER|GLOB", help="what to label")
    add("--video", metavar="FILE|N", help="label a video or webcam N instead; --out is the file of the overlay video")
    add("--recursive", action="store_true", help="also folders below a FOLDER, written to the same folders in --out")
    add("--out", metavar="DIR|FILE", required=True, help="for <name>.png and <name>_overlay.png; FILE.mp4 of a video")
    add("--scores", action="store_true", help="also <name>_scores.png, the confidence as gray 0..255")
    add("--batch-size", type=positive_int, default=1, metavar="N", help="images of equal size computed together")
    add_source_flags(parser)
    add_inference_flags(parser, protocols=PROTOCOLS, protocol_help=PROTOCOL_HELP)
    names = parser.add_argument_group("names and colors of the classes, if the weights have none")
    names.add_argument("--dataset", choices=DATASETS, help="take this dataset's (default: VOC's or Cityscapes')")
    names.add_argument("--data-root", metavar="DIR", help="its folder, where folder's classes.txt lies")
    names.add_argument("--context-background", action="store_true", help="context: the background is a class")
    add_device_flags(parser.add_argument_group("device"))
    return parser


def check_flags(args: argparse.Namespace, _given: set[str]) -> None:
    """Raise UserError for flags that do not go together."""
    check_inference_flags(args, PROTOCOLS)
    if args.video is None and not args.images:
        raise UserError("nothing to label: give images, folders, or --video")
    if args.video is not None and (args.images or args.scores or args.recursive):
        raise UserError("images, --scores and --recursive do not belong to --video: leave them out")


if __name__ == "__main__":
    answer_early(make_parser(), check_flags)  # above the imports below, which take seconds

from torch.utils.data import DataLoader, Dataset

from dataloaders.loaders import init_worker
from modeling.inputs import InputImage, to_rgb_image
from modeling.pretrained.loaded_model import load_model
from modeling.segmenter import Segmentation, Segmenter
from utils.image_files import FLAG_HINTS, FoundImages, find_images
from utils.label_files import name_outputs, outputs, score_image, write_images
from utils.progress import progress
from utils.run.signals import setup_signals
from utils.video import Frame, VideoFile, VideoWriter, Webcam, open_video


class ImageFiles(Dataset):
    """InputImage by index; (the line of the error, path) where it cannot be read."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> InputImage | tuple[str, Path]:
        try:
            return InputImage(to_rgb_image(self.paths[index]), self.paths[index])
        except UserError as error:
            return error.line(), self.paths[index]


def main(argv: Sequence[str] | None = None) -> int:
    args, given = parse(make_parser(), argv)
    return run_command(lambda: predict(args, given))


def predict(args: argparse.Namespace, given: set[str]) -> int:
    check_flags(args, given)
    if args.video is not None:
        return predict_video(args, given)
    found = find_images(args.images, recursive=args.recursive)
    targets = name_outputs(found.files, Path(args.out))
    segmenter = build_segmenter(args, given)
    failed = label_images(segmenter, targets, workers=args.workers)
    if not args.scores:
        warn_of_old_scores(targets.values())
    return report(found, failed, args.out)


def predict_video(args: argparse.Namespace, given: set[str]) -> int:
    """Ctrl-C and SIGTERM end the video with the frames so far."""
    out = Path(args.out).expanduser()
    if Path(args.video).resolve() == out.resolve():
        raise UserError(f"{out} is the video to label and would be overwritten: give another --out")
    with contextlib.closing(open_video(args.video)) as video, setup_signals():
        writer = VideoWriter(out, rate=video.rate, clock=video.clock, aspect=video.aspect)
        try:
            label_video(build_segmenter(args, given), video, writer)
        finally:
            writer.close()
            print(f"{writer.num_frames} frames labeled in {out}")
    return 0


def label_video(segmenter: Segmenter, video: VideoFile | Webcam, writer: VideoWriter) -> None:
    """Write the overlay of each frame. The legend keeps the classes that were seen, so that it does not flicker."""
    times: deque[Fraction] = deque()
    seen: set[int] = set()
    with progress("frames", 0, video.num_frames, iterable=video, unit="frame") as bar:
        for result in segmenter.label_all(timed(bar, times)):
            seen.update(result.drawn_classes())
            writer.write(result.overlay(legend=seen), times.popleft())


def timed(frames: Iterable[Frame], times: deque[Fraction]) -> Iterator[InputImage]:
    """The images alone; their times are added to `times`."""
    for frame in frames:
        times.append(frame.time)
        yield InputImage(frame.image)


def build_segmenter(args: argparse.Namespace, given: set[str]) -> Segmenter:
    names = None
    if args.dataset:
        names = class_names(args.dataset, args.data_root, context_background=args.context_background)
    loaded = load_model(
        args.checkpoint, weights_from=args.weights_from, network=network_flags(args, given),
        out_stride=args.out_stride, names=names, is_partial=args.partial_weights,
    )  # fmt: skip
    if args.scores and loaded.gives_labels:
        raise UserError(f"--scores: {loaded.source} gives labels alone: leave it out, or export with --output logits")
    how = window_flags(args, loaded.config.get("crop_size"), PROTOCOLS)
    return Segmenter(
        loaded, args.device, amp=args.amp, scales=args.scales, flip=args.flip, window=how.get("crop_size"),
        stride=how.get("stride"), whole=args.protocol == "whole", batch_size=args.batch_size, scores=args.scores,
    )  # fmt: skip


def label_images(segmenter: Segmenter, targets: Mapping[Path, Path], *, workers: int) -> list[str]:
    """Label and write every image. Returns a line for each that cannot be read."""
    loader = DataLoader(
        ImageFiles(list(targets)),
        batch_size=None,
        num_workers=min(workers, len(targets)),
        worker_init_fn=init_worker,
    )
    failed: list[str] = []
    with progress("images", 0, len(targets), iterable=loader, unit="image") as bar:
        for result in segmenter.label_all(without_failed(bar, failed)):
            write(result, targets[result.path])
            del result  # it must not live until the next image is labeled
    return failed


def without_failed(images: Iterable[InputImage | tuple[str, Path]], failed: list[str]) -> Iterator[InputImage]:
    """The images alone; the lines of errors are added to `failed`."""
    for image in images:
        if isinstance(image, InputImage):
            yield image
        else:
            failed.append(image[0])


def write(result: Segmentation, target: Path) -> None:
    labels, overlay, scores = outputs(target)
    images = {labels: result.label_image(), overlay: result.overlay()}
    write_images(images if result.scores is None else images | {scores: score_image(result.scores)})


def warn_of_old_scores(targets: Iterable[Path]) -> None:
    """Name the confidence images of an earlier call beside the new labels: they may be of another network."""
    old = [path for target in targets if (path := outputs(target)[2]).exists()]
    if old:
        print(
            f"note: {len(old)} confidence images are of an earlier call: {old[0]}, ...: give --scores, or remove them"
        )


def report(found: FoundImages, failed: list[str], out: str) -> int:
    """Print how many images were labeled, and what was left out. Raises UserError for what cannot be read or found."""
    print(f"{len(found.files) - len(failed)} images labeled in {out}")
    for content in found.folders:
        print(f"left out of {content.folder}: {content.describe_left_out(FLAG_HINTS)}")
    lines, total = found.missing + failed, len(found.files) + len(found.missing)
    for line in lines[:-1]:
        print(with_flags(line), file=sys.stderr)
    if lines:
        raise UserError(f"{len(lines)} of {total} images not labeled: {lines[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
