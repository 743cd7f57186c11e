"""The root folders of the datasets: the one file a user edits."""

import os

ROOTS = {
    "pascal": "/path/to/datasets/VOCdevkit/VOC2012",  # holds JPEGImages/
    "sbd": "/path/to/datasets/benchmark_RELEASE/dataset",  # holds img/ and cls/
    "cityscapes": "/path/to/datasets/cityscapes",  # holds leftImg8bit/ and gtFine/
    "coco": "/path/to/datasets/coco",  # holds train2017/, val2017/ and annotations/
    "ade20k": "/path/to/datasets/ADEChallengeData2016",  # holds images/ and annotations/
    "context": "/path/to/datasets/VOCdevkit/VOC2010",  # holds JPEGImages/ and SegmentationClassContext/
    "folder": "/path/to/datasets/mine",  # holds JPEGImages/ and classes.txt
}


class Path:
    @staticmethod
    def db_root_dir(dataset: str) -> str:
        """Root folder of a dataset: DEEPLAB_<DATASET>_ROOT if it is set, else its line in ROOTS."""
        return os.environ.get(f"DEEPLAB_{dataset.upper()}_ROOT") or ROOTS.get(dataset, f"/path/to/datasets/{dataset}")
