"""Whether the folders and lists of a dataset are what its loader expects.

For loaders, which stop at the first mistake, and for `python -m dataloaders.check`, which collects all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError

Report = Callable[[Sequence[str]], None]


def raise_first(problems: Sequence[str]) -> None:
    """Raise UserError with the first of `problems`, where there is one."""
    if problems:
        num_more = len(problems) - 1
        more = f"; and {num_more} more: python -m dataloaders.check lists all" if num_more else ""
        raise UserError(problems[0] + more)


def require_folder(folder: Path, dataset: str, wanted: str) -> Path:
    """`folder`, if it is one. Else UserError: what was looked for, and of which dataset this looks to be the root."""
    if not folder.is_dir():
        raise UserError(
            f"{dataset}: no folder {folder} (looked for {wanted}): give --data-root DIR, "
            f"set DEEPLAB_{dataset.upper()}_ROOT, or edit mypath.py{hint(folder, dataset)}"
        )
    return folder


def hint(folder: Path, dataset: str) -> str:
    """What lies in the nearest folder above `folder` that is there, if it is another dataset's layout."""
    root = next((above for above in (folder, *folder.parents) if above.is_dir()), folder)
    found = layout_of(root)
    return f"; {root} has the layout of {found}: --dataset {found}?" if found not in (None, dataset) else ""


def layout_of(root: Path) -> str | None:
    """The dataset whose root `root` looks to be."""
    if (root / "leftImg8bit").is_dir():
        return "cityscapes"
    if any((root / "annotations").glob("instances_*.json")):
        return "coco"
    if (root / "JPEGImages").is_dir():
        return "folder" if (root / "classes.txt").is_file() else "pascal"
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, stripped, blank ones too."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it lists the ids of the split, one a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error}): write it anew in UTF-8") from error


def read_ids(path: Path) -> list[str]:
    """The ids of a split, one a line; blank lines and Windows ends do not matter."""
    ids = [line for line in read_lines(path) if line]
    if not ids:
        raise UserError(f"{path} lists no image: write one id a line")
    return ids


class Names(NamedTuple):
    """How to tell the user of a missing file: the list of ids, the images' place, a label's path with {}, the fix."""

    source: str
    images: str
    label: str
    fix: str = "add it, or take the line out"


def match_files(
    ids: Sequence[str], images: Mapping[str, Path], labels: Mapping[str, Path], *, names: Names, report: Report
) -> list[str]:
    """The `ids` that have both files. The others are reported, images before labels."""
    source, place, label, fix = names
    report([f"{place} has no image for id {key} of {source}: {fix}" for key in ids if key not in images])
    report([f"{label.format(key)} is missing ({source} lists its id): {fix}" for key in ids if key not in labels])
    return [key for key in ids if key in images and key in labels]


def files_by_id(folder: Path, endings: Sequence[str], report: Report) -> dict[str, Path]:
    """id -> file. Two files of one id are reported, and the first one counts.

    One listing of the folder, since asking for every id and ending is slow on network disks.
    """
    files, problems = {}, []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in endings and files.setdefault(path.stem, path) != path:
            problems.append(f"{files[path.stem]} and {path} both are of id {path.stem}: take one of them out")
    report(problems)
    return files
