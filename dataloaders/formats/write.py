"""Writes the layout of `--dataset folder` beside its place, and renames it when it is complete."""

import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dataloaders.checks.class_file import render_class_lines
from dataloaders.formats.match import MARKER
from dataloaders.formats.pixels import replace_codes
from dataloaders.formats.reading import as_stored
from dataloaders.formats.source import Item, Source
from utils.errors import UserError, writing
from utils.palettes import palette_image
from utils.progress import progress

LINKS = ("hard", "symbolic")
FIX = "free space, or give another --out"


def check_output(out: Path, sources: Sequence[Path]) -> Path:
    """The folder to write before it becomes `out`. Raises UserError if `out` has content, or is or holds a source."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty: give another --out, or remove it")
    for source in sources:
        if source.resolve() == out.resolve():
            raise UserError(f"{out} is also read from: give another --out")
    part = out.with_name(f"{out.name}.unfinished")
    if part.exists() and not (part / MARKER).is_file():
        raise UserError(f"{part} exists, but is not what an interrupted convert left: remove it, or give another --out")
    return part


def write_dataset(
    source: Source, splits: Mapping[str, Sequence[str]], numbers: Mapping[int, int], *, out: Path, link: str | None
) -> None:
    """Write `out`; `numbers` has the class of each code. What an interrupted call left is removed first.

    Raises UserError if a file cannot be written; then `out` does not exist.
    """
    part = check_output(out, [])
    with writing(part, FIX):
        shutil.rmtree(part, ignore_errors=True)
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (part / folder).mkdir(parents=True)
            (part / MARKER).touch()
        lines = render_class_lines(source.classes, source.palette, with_colors=source.colors is not None)
        (part / "classes.txt").write_text(lines, encoding="utf-8")
        for split, ids in splits.items():
            lines = "".join(f"{image_id}\n" for image_id in ids)
            (part / f"ImageSets/Segmentation/{split}.txt").write_text(lines, encoding="utf-8")
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("writing", 0, len(source.items), unit="image") as bar:
        for _ in pool.map(lambda item: write_item(source, item, numbers, part, link), source.items):
            bar.update()
    with writing(out, FIX):
        (part / MARKER).unlink()
        if out.is_dir():
            out.rmdir()
        part.rename(out)


def write_item(source: Source, item: Item, numbers: Mapping[int, int], root: Path, link: str | None) -> None:
    """Write the label, and copy or link the image."""
    codes, _ = source.read_label(item)
    label = as_stored(replace_codes(codes, numbers), source, item)
    path = root / f"SegmentationClass/{item.id}.png"
    with writing(path, FIX):
        palette_image(label, source.palette).save(path)
    target = root / f"JPEGImages/{item.id}{item.image.suffix.lower()}"
    with writing(target, "leave out --link" if link else FIX):
        if link == "hard":
            os.link(item.image.resolve(), target)
        elif link == "symbolic":
            target.symlink_to(item.image.resolve())
        else:
            shutil.copyfile(item.image, target)
