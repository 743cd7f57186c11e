"""A user's own data: VOC's layout plus `classes.txt`, one class name a line in the order of their numbers."""

from pathlib import Path

from dataloaders.base import IGNORE_INDEX, read_lines, require_folder
from dataloaders.voc import VOCLayout
from errors import UserError


class Folder(VOCLayout):
    def __init__(self, root: Path, split: str):
        require_folder(root, "folder", "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/ and classes.txt")
        super().__init__(root, split, name="folder", classes=read_classes(root / "classes.txt"))


def read_classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise UserError(f"{path} is missing: write the class names, one a line, in the order of their numbers from 0")
    names = read_lines(path)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path} names {repeated[0]!r} twice: one line a class")
    if not 2 <= len(names) < IGNORE_INDEX:
        raise UserError(f"{path} names {len(names)} classes: 2 to {IGNORE_INDEX - 1} are possible")
    return tuple(names)
