"""Checks of a dataset's folders and lists, and the matching of images with labels.

They pass their problems to `report`: a loader stops at the first one, `python -m dataloaders.check` collects all.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataloaders.archives.catalog import command_for
from utils.errors import UserError

Report = Callable[[Sequence[str]], None]


def raise_first(problems: Sequence[str]) -> None:
    """Raise UserError with the first of `problems`, if there is any."""
    if problems:
        num_more = len(problems) - 1
        more = f"; and {num_more} more: python -m dataloaders.check lists all" if num_more else ""
        raise UserError(problems[0] + more)


def first_five(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def require_folder(folder: Path, dataset: str, wanted: str) -> Path:
    """`folder`. Raises UserError if it does not exist: with `wanted`, its expected content, and how to set the root."""
    if not folder.is_dir():
        raise UserError(f"{dataset}: no folder {folder} (looked for {wanted}): {how_to_set_root(folder, dataset)}")
    return folder


def how_to_set_root(path: Path, dataset: str, flag: str = "--data-root DIR") -> str:
    """End of a message that `path` is missing: the ways to set the root, and whose root this one looks like."""
    return f"{ways_to_set_root(dataset, flag)}{hint(path, dataset)}"


def ways_to_set_root(dataset: str, flag: str) -> str:
    """The command that gets the data first, where there is one; `folder` is made by another."""
    ways = f"give {flag}, set DEEPLAB_{dataset.upper()}_ROOT, or edit mypath.py"
    if dataset == "folder":
        return f"{ways}; python -m dataloaders.convert makes this layout of your images and masks"
    command = command_for(dataset)
    return f"run {command}, {ways}" if command else ways


def hint(path: Path, dataset: str) -> str:
    """End of a message that `path` is missing: whether the nearest existing folder, or the one that it is in, is
    another dataset's root.
    """
    nearest = next((folder for folder in (path, *path.parents) if folder.is_dir()), path)
    for root in (nearest, nearest.parent):
        if other := layout_of(root):
            return f"; {root} has the layout of {other}: --dataset {other}?" if other != dataset else ""
    return ""


def layout_of(root: Path) -> str | None:
    """The dataset whose folders are in `root`."""
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if any((root / folder / "annotations" / "training").is_dir() for folder in ("", "ADEChallengeData2016")):
        return "ade20k"
    if any((root / "annotations").glob("instances_*.json")):
        return "coco"
    if (root / "SegmentationClassContext").is_dir():
        return "context"
    if (root / "images").is_dir() and (root / "masks").is_dir():
        return "folder"
    if (root / "JPEGImages").is_dir():
        return "folder" if (root / "classes.txt").is_file() else "pascal"
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, stripped, with the blank ones. Raises UserError if it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: it lists the ids of the split, one a line (python -m dataloaders.convert makes lists)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): save it in UTF-8") from error


def read_ids(path: Path) -> list[str]:
    """The ids of a split, one a line, without blank lines. Raises UserError if there is none."""
    ids = [line for line in read_lines(path) if line]
    if not ids:
        raise UserError(f"{path} lists no image: write one id a line")
    return ids


def files_by_id(folder: Path, suffixes: Sequence[str], report: Report) -> dict[str, Path]:
    """id -> file, for the files with one of the lower-case `suffixes`. Two files of one id are a problem.

    The folder is listed once: to ask for each id and suffix is slow on network disks.
    """
    files, problems = {}, []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes and files.setdefault(path.stem, path) != path:
            problems.append(f"{files[path.stem]} and {path} both have the id {path.stem}: remove one of them")
    report(problems)
    return files


class Names(NamedTuple):
    """Parts of the message that a file is missing."""

    source: str  # what lists the ids
    images: str  # folder of the images
    label: str  # path of a label, with {} for the id
    fix: str = "add it, or take the line out"


def match_files(
    ids: Sequence[str], images: Mapping[str, Path], labels: Mapping[str, Path], *, names: Names, report: Report
) -> list[str]:
    """The `ids` that are in both `images` and `labels`. The others are problems, images before labels."""
    source, folder, label, fix = names
    missing = [image_id for image_id in ids if image_id not in images]
    report([f"{folder} has no image for id {image_id} of {source}: {fix}" for image_id in missing])
    missing = [image_id for image_id in ids if image_id not in labels]
    report([f"{label.format(image_id)} is missing ({source} lists its id): {fix}" for image_id in missing])
    return [image_id for image_id in ids if image_id in images and image_id in labels]
