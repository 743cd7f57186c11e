"""Data sets by name."""

from pathlib import Path

from dataloaders.base import IGNORE_INDEX, PictureSet
from dataloaders.layout import Report, refuse
from dataloaders.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE, VOC_CLASSES, voc_palette
from dataloaders.sampler import StepSampler
from dataloaders.samples import TrainSamples, train_loader, whole_loader
from dataloaders.survey import check_labels
from dataloaders.transforms import RandomScaleCrop
from errors import UserError
from mypath import Path as Roots

__all__ = [
    "DATASETS", "IGNORE_INDEX", "PictureSet", "RandomScaleCrop", "StepSampler", "TrainSamples", "build_dataset",
    "check_labels", "class_names", "train_loader", "whole_loader",
]  # fmt: skip

DATASETS = ("pascal", "cityscapes", "coco", "folder", "demo")


def build_dataset(
    name: str,
    split: str,
    *,
    root: str | None = None,
    use_sbd: bool = False,
    sbd_root: str | None = None,
    report: Report = refuse,
) -> PictureSet:
    """Pictures and labels of a split. `root` wins over the environment, that over mypath.py.

    `use_sbd` joins SBD to the training pictures of pascal. Raises UserError where the layout is not as expected;
    files that are missing are told to `report`, which by default raises it too, else they are left out.
    """
    # Imported where needed: VOC must not need pycocotools, nor COCO SciPy
    if name == "demo":
        from dataloaders.demo import Demo

        return Demo(split)
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    folder = Path(root or Roots.db_root_dir(name)).expanduser()
    if name == "pascal":
        return build_pascal(folder, split, use_sbd=use_sbd, sbd_root=sbd_root, report=report)
    if name == "cityscapes":
        from dataloaders.cityscapes import Cityscapes

        return Cityscapes(folder, split, report=report)
    if name == "coco":
        from dataloaders.coco import COCO

        return COCO(folder, split, report=report)
    from dataloaders.folder import Folder

    return Folder(folder, split, report=report)


def class_names(name: str, root: str | None = None) -> tuple[tuple[str, ...], list[tuple[int, int, int]]]:
    """(classes, palette) of a data set, without its pictures."""
    if name == "cityscapes":
        return CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
    if name in ("pascal", "coco"):
        return VOC_CLASSES, voc_palette(len(VOC_CLASSES))
    if name == "demo":
        from dataloaders.demo import CLASSES as classes
    else:
        from dataloaders.folder import read_classes

        classes = read_classes(Path(root or Roots.db_root_dir(name)).expanduser() / "classes.txt")
    return classes, voc_palette(len(classes))


def build_pascal(folder: Path, split: str, *, use_sbd: bool, sbd_root: str | None, report: Report) -> PictureSet:
    """VOC, its training split joined by what SBD labels outside VOC val (10,582 pictures on the real sets)."""
    from dataloaders.voc import VOC

    voc = VOC(folder, split, report=report)
    if not use_sbd or split != "train":
        return voc
    from dataloaders.combine import Union
    from dataloaders.sbd import SBD

    sbd = SBD(Path(sbd_root or Roots.db_root_dir("sbd")).expanduser(), report=report)
    return Union([voc, sbd], excluded=set(VOC(folder, "val", report=report).ids))
