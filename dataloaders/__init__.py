"""Datasets by name. A new one is a file with a subclass of SegmentationDataset, and a line in the table DATASETS."""

from importlib import import_module
from pathlib import Path

from dataloaders.base import IGNORE_INDEX, SegmentationDataset
from dataloaders.checks.layout import Report, raise_first
from mypath import Path as Roots
from utils.errors import UserError
from utils.palettes import Palette

__all__ = [
    "DATASETS", "IGNORE_INDEX", "EvalDataset", "RandomScaleCrop", "ResumableBatchSampler", "SegmentationDataset",
    "TrainDataset", "build_dataset", "check_absent", "check_labels", "class_names", "eval_loader", "start_workers",
    "train_loader",
]  # fmt: skip

# name -> its module, imported on demand: they need torch, and the commands read DATASETS before they import that
NEED_TORCH = {
    "EvalDataset": "datasets", "RandomScaleCrop": "transforms", "ResumableBatchSampler": "sampler",
    "TrainDataset": "datasets", "check_absent": "checks.absent", "check_labels": "checks.counts",
    "eval_loader": "loaders", "start_workers": "loaders", "train_loader": "loaders",
}  # fmt: skip
# name -> "module.Class", imported on demand: VOC does not need pycocotools, COCO does not need SciPy
DATASETS = {
    "pascal": "dataloaders.voc.VOC",
    "cityscapes": "dataloaders.cityscapes.Cityscapes",
    "coco": "dataloaders.coco.COCO",
    "ade20k": "dataloaders.ade20k.ADE20K",
    "context": "dataloaders.context.Context",
    "folder": "dataloaders.folder.Folder",
    "demo": "dataloaders.demo.Demo",
}


def build_dataset(
    name: str,
    split: str,
    *,
    root: str | None = None,
    use_sbd: bool = False,
    sbd_root: str | None = None,
    context_background: bool = False,
    report: Report = raise_first,
) -> SegmentationDataset:
    """The images and labels of a split. `root` overrides the environment, which overrides mypath.py.

    `use_sbd` adds SBD to the training images of pascal; `context_background` makes the background a class of context.
    Neither has an effect on the other datasets. Raises UserError for an unknown name or layout. Missing files and
    invalid lists go to `report`, which by default raises UserError; with another one they are left out.
    """
    kind = dataset_class(name, context_background=context_background)
    dataset = kind(root_folder(name, root), split, report=report)
    if use_sbd and name == "pascal" and split == "train":
        from dataloaders.sbd import add_sbd

        return add_sbd(dataset, root_folder(name, root), root_folder("sbd", sbd_root), report=report)
    return dataset


def class_names(
    name: str, root: str | None = None, *, context_background: bool = False
) -> tuple[tuple[str, ...], Palette]:
    """(classes, palette) of a dataset, without reading its images. The arguments are those of `build_dataset`."""
    return dataset_class(name, context_background=context_background).class_names(root_folder(name, root))


def dataset_class(name: str, *, context_background: bool = False) -> type[SegmentationDataset]:
    if name not in DATASETS:
        raise UserError(f"unknown dataset {name!r}: choose one of {', '.join(DATASETS)}")
    module, _, attribute = DATASETS[name].rpartition(".")
    if name == "context" and context_background:
        attribute = "ContextWithBackground"
    return getattr(import_module(module), attribute)


def root_folder(name: str, root: str | None) -> Path:
    return Path(root or Roots.db_root_dir(name)).expanduser()


def __getattr__(name: str) -> object:
    if name not in NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{NEED_TORCH[name]}"), name)
