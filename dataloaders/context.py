"""Pascal Context (Mottaghi et al., CVPR 2014): VOC 2010's images with labels of the whole scene, in 59 classes."""

from pathlib import Path

from dataloaders.checks.layout import Report, raise_first, require_folder
from dataloaders.voc import VOCLayout, find_voc
from utils.palettes import ADE20K_PALETTE, CONTEXT_CLASSES

BACKGROUND, *COLORS = ADE20K_PALETTE[: 1 + len(CONTEXT_CLASSES)]  # as mmsegmentation colors them


class Context(VOCLayout):
    """`JPEGImages/<id>.jpg`, `SegmentationClassContext/<id>.png`, ids in `ImageSets/SegmentationContext/<split>.txt`.

    The labels have 1..59 for the classes and 0 for everything else, the background, which is ignored.
    """

    name, classes, palette, first_value = "context", CONTEXT_CLASSES, COLORS, 1
    list_folders, label_folders = ("ImageSets/SegmentationContext",), ("SegmentationClassContext",)
    has_void_border = False

    def __init__(self, root: Path, split: str, *, report: Report = raise_first):
        root = find_voc(root, "2010", "context")
        require_folder(root / self.list_folders[0], "context", "the lists made with SegmentationClassContext/")
        super().__init__(root, split, report=report)


class ContextWithBackground(Context):
    """The background is class 0 of 60."""

    classes, palette, first_value = ("background", *CONTEXT_CLASSES), [BACKGROUND, *COLORS], 0
