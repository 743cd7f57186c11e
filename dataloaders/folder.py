"""A user's own data: VOC's layout and `classes.txt` with the class names, one a line, in the order of their numbers.

Also `images/` and `masks/` for the folders, and the lists `train.txt` and `val.txt` in the root.
"""

from pathlib import Path

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.class_file import class_name_problems, parse_class_lines, read_class_lines
from dataloaders.checks.layout import Report, hint, raise_first, require_folder
from dataloaders.voc import VOCLayout
from utils.distinct_colors import distinct_palette
from utils.errors import UserError
from utils.palettes import Palette


class Folder(VOCLayout):
    name = "folder"
    image_folders = ("JPEGImages", "images")
    label_folders = ("SegmentationClass", "masks")
    list_folders = ("ImageSets/Segmentation", ".")

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        require_folder(root, "folder", "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/ and classes.txt")
        self.classes, self.palette = read_classes(root / "classes.txt", report)
        super().__init__(root, split, report=report)
        if len(self.classes) == 2 and self.has_labels:
            report(self.two_class_problems())

    @classmethod
    def class_names(cls, root: Path) -> tuple[tuple[str, ...], Palette]:
        return read_classes(root / "classes.txt")

    def two_class_problems(self) -> list[str]:
        """A problem if all labels hold only 0 and 255: an image of two classes saved as black and white."""
        has_ignored = False
        for index in range(len(self)):
            try:
                counts = self.open_label(index).histogram()
            except UserError:  # reported when the label is read
                continue
            if counts[1]:
                return []
            has_ignored |= counts[IGNORE_INDEX] > 0
        if not has_ignored:
            return []
        return [
            f"{self.label_folder} holds only 0 and 255, but the second class {self.classes[1]!r} is 1 "
            "and 255 is ignored: write 1 in place of 255 (python -m dataloaders.convert with --values 0 255)"
        ]


def read_classes(path: Path, report: Report = raise_first) -> tuple[tuple[str, ...], Palette]:
    """(class names in the order of their numbers, their colors: the file's, else distinct ones).

    Raises UserError if there is no file, or for invalid colors. Invalid names go to `report`. If it returns, repeated
    names become unique, so that labels can still be checked.
    """
    if not path.is_file():
        raise UserError(
            f"{path} is missing: write the class names, one a line, in the order of their numbers from 0"
            f"{hint(path, 'folder')}"
        )
    names, colors = parse_class_lines(path, read_class_lines(path))
    report(class_name_problems(path, names))
    palette = colors or (distinct_palette(names) if names else [])
    return tuple(
        name if number == names.index(name) else f"{name} ({number})" for number, name in enumerate(names)
    ), palette
