"""Fixtures: small datasets in temporary folders, and the same clean state for every test."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import box, coco_object, run_lengths, write_ade20k, write_context, write_network, write_voc
from scipy.io import savemat

SHARED = Path(__file__).parents[2] / "shared"


def pytest_terminal_summary(terminalreporter):
    """Print what tests measured, in whichever process they ran."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    lines = [text for report in reports for name, text in report.user_properties if name == "margins"]
    if lines:
        terminalreporter.section("agreement with reference outputs")
        terminalreporter.write("".join(f"{line}\n" for line in sorted(set(lines))))


def fail_with(path: Path, error: Exception) -> None:
    """A page that cannot be made ends no run, but it fails a test."""
    raise error


@pytest.fixture(autouse=True)
def clean_state(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # no roots that this user's runs remember
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("utils.run.recorder.note_failure", fail_with)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow; no test cuts the power
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the maps are small: more threads are slower
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def shared():
    """The folder with real images and weights beside the project; skips the test where it is missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data: {SHARED / 'data'} is not there")
    return SHARED


@pytest.fixture
def voc_root(tmp_path):
    return write_voc(tmp_path / "VOC2012", {"train": [f"t{n}" for n in range(6)], "val": ["v0", "v1", "v2"]})


@pytest.fixture
def folder_root(tmp_path):
    """A dataset of the layout `folder` with three classes."""
    root = write_voc(tmp_path / "mine", {"train": [f"t.{n}" for n in range(6)], "val": ["v.0", "v.1"]}, num_classes=3)
    (root / "classes.txt").write_text("ground\nwall\nsky\n")
    return root


@pytest.fixture
def sbd_root(tmp_path, voc_root):
    """t0 is also in VOC train, v0 in VOC val, s0 and s1 in neither."""
    root, random = tmp_path / "sbd", np.random.default_rng(7)
    for folder in ("img", "cls"):
        (root / folder).mkdir(parents=True)
    for key in ("t0", "v0", "s0", "s1"):
        label = random.integers(0, 21, (36, 48), dtype=np.uint8)
        Image.fromarray(random.integers(0, 255, (36, 48, 3), dtype=np.uint8)).save(root / f"img/{key}.jpg")
        savemat(root / f"cls/{key}.mat", {"GTcls": {"Segmentation": label}})
    (root / "train.txt").write_text("t0\nv0\ns0\n")
    (root / "val.txt").write_text("s1\n")
    return root


@pytest.fixture
def cityscapes_root(tmp_path):
    root, random = tmp_path / "cityscapes", np.random.default_rng(3)
    for split, count in (("train", 4), ("val", 2)):
        images, labels = root / f"leftImg8bit/{split}/town", root / f"gtFine/{split}/town"
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            stem = f"town_{number:06d}_000019"
            label = random.integers(0, 34, (32, 64), dtype=np.uint8)
            Image.fromarray(random.integers(0, 255, (32, 64, 3), dtype=np.uint8)).save(
                images / f"{stem}_leftImg8bit.png"
            )
            Image.fromarray(label).save(labels / f"{stem}_gtFine_labelIds.png")
    return root


@pytest.fixture
def ade20k_root(tmp_path):
    return write_ade20k(tmp_path / "ade20k")


@pytest.fixture
def context_root(tmp_path):
    return write_context(tmp_path / "VOC2010")


@pytest.fixture
def coco_root(tmp_path):
    """100x80 images. 1: person (class 15) over dog (12), a crowd; 2: a small cat; 3: a giraffe; 4, 5: a large bus."""
    root, random = tmp_path / "coco", np.random.default_rng(5)
    crowd = np.zeros((80, 100), np.uint8)
    crowd[70:, :] = 1
    runs = {"size": [80, 100], "counts": run_lengths(crowd)}
    objects = [
        coco_object(1, 1, [box(10, 10, 60, 60)]),
        coco_object(1, 18, [box(40, 40, 90, 65)]),
        coco_object(1, 1, runs, is_crowd=1),
        coco_object(2, 17, [box(0, 0, 20, 20)]),
        coco_object(3, 25, [box(0, 0, 90, 70)]),
        coco_object(4, 6, [box(0, 0, 90, 70)]),
        coco_object(5, 6, [box(5, 5, 95, 75)]),
    ]
    for number, entry in enumerate(objects):
        entry |= {"id": number + 1, "bbox": [0, 0, 1, 1], "area": 1}
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "height": 80, "width": 100} for n in range(1, 6)]
    categories = [{"id": n, "name": str(n)} for n in (1, 6, 17, 18, 25)]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / f"{split}2017").mkdir()
        content = {"images": images, "annotations": objects, "categories": categories}
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(content))
        for image in images:
            pixels = random.integers(0, 255, (80, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{split}2017/{image['file_name']}")
    return root


@pytest.fixture
def folder_network(folder_root, tmp_path):
    """A checkpoint of a network for `folder_root`."""
    return write_network(tmp_path / "net.pth", ("ground", "wall", "sky"), dataset="folder", data_root=str(folder_root))
