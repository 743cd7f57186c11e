"""SBD, the semantic boundaries set (Hariharan et al., ICCV 2011): VOC images with labels in MATLAB files."""

from pathlib import Path

from PIL import Image
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from dataloaders.base import SegmentationDataset
from dataloaders.checks.layout import Names, Report, files_by_id, match_files, raise_first, read_ids
from dataloaders.merged import MergedDataset
from dataloaders.voc import VOC
from utils.errors import BrokenImage, UserError
from utils.images import DECODE_ERRORS
from utils.palettes import VOC_CLASSES, voc_palette


class SBD(SegmentationDataset):
    """All that SBD labels: its train and val lists together. It has no border of 255."""

    name, classes, palette = "sbd", VOC_CLASSES, voc_palette(len(VOC_CLASSES))

    def __init__(self, root: Path, *, report: Report = raise_first):
        self.root = find_sbd(root)
        lists = (read_ids(self.root / f"{split}.txt") for split in ("train", "val"))
        ids = list(dict.fromkeys(key for ids in lists for key in ids))
        images = files_by_id(self.root / "img", [".jpg"], report)
        labels = files_by_id(self.root / "cls", [".mat"], report)
        names = Names("SBD's lists", str(self.root / "img"), f"{self.root / 'cls'}/{{}}.mat")
        self.ids = match_files(ids, images, labels, names=names, report=report)

    def image_path(self, index: int) -> Path:
        return self.root / "img" / f"{self.ids[index]}.jpg"

    def label_path(self, index: int) -> Path:
        return self.root / "cls" / f"{self.ids[index]}.mat"

    def open_label(self, index: int) -> Image.Image:
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
    for folder in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if (folder / "img").is_dir() and (folder / "cls").is_dir():
            return folder
    raise UserError(
        f"sbd: no img/ and cls/ in {root} (looked there, in dataset/ and in benchmark_RELEASE/dataset/): "
        "give --sbd-root DIR, set DEEPLAB_SBD_ROOT, or edit mypath.py"
    )


def add_sbd(voc: VOC, voc_root: Path, root: Path, *, report: Report) -> MergedDataset:
    """VOC's training images, and those that SBD labels outside VOC val: 10,582 on the real sets. VOC's labels win."""
    return MergedDataset([voc, SBD(root, report=report)], excluded=set(VOC(voc_root, "val", report=report).ids))
