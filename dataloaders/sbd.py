"""SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): images of VOC, labels in MATLAB files."""

from pathlib import Path

from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import (
    Names,
    Report,
    files_by_id,
    raise_first,
    read_ids,
    ways_to_set_root,
)
from dataloaders.merged import MergedDataset
from dataloaders.voc import VOC
from utils.errors import BrokenImage, UserError
from utils.images import DECODE_ERRORS
from utils.palettes import VOC_CLASSES, voc_palette


class SBD(SegmentationDataset):
    """All images of SBD's train and val lists. Its labels have no border of 255."""

    name, classes, palette = "sbd", VOC_CLASSES, voc_palette(len(VOC_CLASSES))

    def __init__(self, root: Path, *, report: Report = raise_first):
        root = find_sbd(root)
        ids = read_ids(root / "train.txt") + read_ids(root / "val.txt")
        images = files_by_id(root / "img", [".jpg"], report)
        labels = files_by_id(root / "cls", [".mat"], report)
        names = Names("SBD's lists", str(root / "img"), f"{root / 'cls'}/{{}}.mat")
        self.ids = self.match(list(dict.fromkeys(ids)), images, labels, names=names, report=report)

    def open_label(self, index: int) -> Image.Image:
        """Mode L, from the array GTcls.Segmentation of the MATLAB file."""
        path = self.label_path(index)
        try:
            content = loadmat(path, variable_names="GTcls")
        except FileNotFoundError:
            raise UserError(f"{path} is missing: add it, or take its id out of SBD's lists") from None
        except (MatReadError, NotImplementedError, *DECODE_ERRORS) as error:
            raise BrokenImage(f"{path} cannot be read as a MATLAB file ({error}): replace it", path) from error
        try:
            return Image.fromarray(content["GTcls"]["Segmentation"][0, 0])
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise UserError(f"{path} holds no GTcls.Segmentation ({error}): SBD's cls/ files are needed") from error


def find_sbd(root: Path) -> Path:
    """The folder that holds img/ and cls/: `root`, or one of the archive's in it. Raises UserError if there is none."""
    for folder in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (folder / "img").is_dir() and (folder / "cls").is_dir():
            return folder
    raise UserError(
        f"sbd: no img/ and cls/ in {root}, in its dataset/ or in its benchmark_RELEASE/dataset/: "
        f"{ways_to_set_root('sbd', '--sbd-root DIR')}"
    )


def add_sbd(voc: VOC, voc_root: Path, root: Path, *, report: Report) -> MergedDataset:
    """VOC's training images and those of SBD that are not in VOC val: 10,582 of the full datasets.

    Where both have a label, VOC's is used.
    """
    return MergedDataset([voc, SBD(root, report=report)], excluded=set(VOC(voc_root, "val", report=report).ids))
