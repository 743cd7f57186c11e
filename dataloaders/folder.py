"""A user's own data: VOC's layout plus `classes.txt`, one class name a line in the order of their numbers."""

from pathlib import Path

from dataloaders.base import IGNORE_INDEX, read_lines, require_folder
from dataloaders.voc import VOCLayout
from errors import UserError


class Folder(VOCLayout):
    def __init__(self, root: Path, split: str):
        require_folder(root, "folder", "JPEGImages/, SegmentationClass/, ImageSets/Segmentation/ and classes.txt")
        super().__init__(root, split, name="folder", classes=read_classes(root / "classes.txt"))
        if len(self.classes) == 2:
            self.check_two_classes()

    def check_two_classes(self) -> None:
        """Raise UserError where labels are 0 and 255 throughout: ignored, the second class would be nowhere."""
        has_ignored = False
        for index in range(len(self)):
            counts = self.open_label(index).histogram()
            if counts[1]:
                return
            has_ignored |= counts[IGNORE_INDEX] > 0
        if has_ignored:
            raise UserError(
                f"{self.labels} holds only 0 and 255, but the second class {self.classes[1]!r} is 1 "
                "and 255 is ignored: write 1 in place of 255"
            )


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
