"""The check of labels and image headers before a run: what it finds, and that its success is remembered."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import begin, command, end, in_process, said, torchrun
from sample_data import save_label

from dataloaders import build_dataset, check_labels
from dataloaders.base import SegmentationDataset
from utils.errors import UserError


def remove(path: Path) -> None:
    """Leave a dangling link, which the listing of the folder still contains."""
    path.unlink()
    path.symlink_to("/nowhere/image")


def save_value(value: int, *, size=(36, 48)) -> Callable[[Path], None]:
    return lambda path: save_label(np.full(size, value, np.uint8), path)


def save_mode(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (48, 36)).save(path)


FAULTS = {
    "RGB label": ("SegmentationClass/{}.png", save_mode("RGB"), "is a RGB image"),
    "16-bit label": ("SegmentationClass/{}.png", save_mode("I;16"), "is a 16-bit image"),
    "label of another size": ("SegmentationClass/{}.png", save_value(0, size=(9, 9)), "is 9x9 but its image"),
    "value that is no class": ("SegmentationClass/{}.png", save_value(7), "holds 7, outside the 3 classes"),
    "text as label": ("SegmentationClass/{}.png", lambda path: path.write_text("x"), "cannot be read as an image"),
    "missing label": ("SegmentationClass/{}.png", remove, "is missing"),
    "text as image": ("JPEGImages/{}.jpg", lambda path: path.write_text("x"), "cannot be read as an image"),
    "missing image": ("JPEGImages/{}.jpg", remove, "is missing"),
}


@pytest.mark.parametrize(("fault", "key"), [*[(fault, "v.1") for fault in FAULTS], ("value that is no class", "t.5")])
def test_a_fault_of_the_last_pair_of_a_split_is_found_before_the_run_starts(fault, key, folder_root, tmp_path, capsys):
    file, damage, text = FAULTS[fault]
    damage(folder_root / file.format(key))
    status, folder = in_process(["--dataset", "folder", "--data-root", str(folder_root)], tmp_path / "run")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and line.startswith("error: ") and file.format(key) in line and text in line
    assert folder is None and not list((tmp_path / "run").rglob("*"))


@pytest.mark.parametrize("dataset", ["cityscapes", "sbd"])
def test_labels_of_cityscapes_and_sbd_are_checked(dataset, cityscapes_root, voc_root, sbd_root, tmp_path, capsys):
    data = ["--dataset", "cityscapes", "--data-root", str(cityscapes_root)]
    if dataset == "sbd":
        data = ["--dataset", "pascal", "--data-root", str(voc_root), "--use-sbd", "--sbd-root", str(sbd_root)]
    (label,) = cityscapes_root.glob("gtFine/val/*/*1_*") if dataset == "cityscapes" else sbd_root.glob("cls/s1.mat")
    label.write_text("x")
    status, folder = in_process(data, tmp_path / "run")
    assert status == 2 and folder is None and str(label) in said(capsys.readouterr().err)[-1]


@pytest.fixture
def reads(monkeypatch) -> list:
    """A list that gets an entry for every label read in this process."""
    calls, original = [], SegmentationDataset.open_label
    monkeypatch.setattr(SegmentationDataset, "open_label", lambda *given: calls.append(given) or original(*given))
    return calls


def check(root: Path, *, skip_broken: bool = False, workers: int = 0) -> None:
    check_labels(build_dataset("folder", "train", root=str(root)), workers=workers, skip_broken=skip_broken)


def test_labels_are_read_again_only_if_a_file_or_the_classes_change(folder_root, reads):
    check(folder_root)
    assert len(reads) == 6
    check(folder_root)
    assert len(reads) == 6
    save_label(np.ones((36, 48), np.uint8), folder_root / "SegmentationClass/t.3.png")
    check(folder_root)
    assert len(reads) == 12
    (folder_root / "classes.txt").write_text("ground\nwall\n")
    with pytest.raises(UserError, match="outside the 2 classes"):
        check(folder_root)


def test_faults_are_counted_and_reported_at_every_start(folder_root):
    for key in ("t.1", "t.2", "t.4"):
        save_label(np.full((36, 48), 7, np.uint8), folder_root / f"SegmentationClass/{key}.png")
    for _ in range(2):
        with pytest.raises(UserError, match=r"t\.1\.png holds 7.*; and 2 more: python -m dataloaders\.check"):
            check(folder_root)


def test_skip_broken_accepts_only_what_cannot_be_decoded(folder_root):
    (folder_root / "SegmentationClass/t.4.png").write_text("x")
    (folder_root / "JPEGImages/t.5.jpg").write_text("x")
    save_label(np.full((36, 48), 7, np.uint8), folder_root / "SegmentationClass/t.5.png")  # not checked
    check(folder_root, skip_broken=True)
    with pytest.raises(UserError, match=r"t\.4\.png cannot be read .*; and 2 more"):
        check(folder_root)
    save_label(np.full((36, 48), 7, np.uint8), folder_root / "SegmentationClass/t.3.png")
    with pytest.raises(UserError, match=r"t\.3\.png holds 7"):
        check(folder_root, skip_broken=True)


def test_pixels_of_images_are_not_decoded(folder_root):
    path = folder_root / "JPEGImages/t.0.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    check(folder_root)


def test_workers_find_the_same_fault(folder_root, monkeypatch, reads):
    monkeypatch.setattr("dataloaders.checks.counts.MIN_IMAGES_FOR_WORKERS", 0)
    save_label(np.full((36, 48), 7, np.uint8), folder_root / "SegmentationClass/t.5.png")
    with pytest.raises(UserError, match=r"^\S*t\.5\.png holds 7"):
        check(folder_root, workers=2)
    assert not reads  # the workers did


def test_the_check_draws_no_random_numbers(folder_root):
    before = torch.get_rng_state()
    check(folder_root)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_exif_orientation_is_found_before_or_after_the_pixels(folder_root, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = (folder_root / "JPEGImages/t.0.jpg").with_suffix(ending)
    (folder_root / "JPEGImages/t.0.jpg").unlink()
    Image.new("RGB", (50, 30)).save(path, exif=exif)
    if ending == ".png":  # move it behind the pixels, as PNG allows
        data = path.read_bytes()
        start, stop = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
        path.write_bytes(data[:start] + data[stop:-12] + data[start:stop] + data[-12:])
    save_label(np.zeros((50, 30), np.uint8), folder_root / "SegmentationClass/t.0.png")
    check(folder_root)
    save_label(np.zeros((50, 31), np.uint8), folder_root / "SegmentationClass/t.0.png")
    with pytest.raises(UserError, match=r"t\.0\.png is 31x50 but its image .* is 30x50"):
        check(folder_root)


@pytest.mark.slow
def test_a_fault_ends_all_processes(folder_root, tmp_path):
    save_label(np.full((36, 48), 7, np.uint8), folder_root / "SegmentationClass/v.1.png")
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    status, _, err = end(begin(command(data, tmp_path / "run", "--workers", "2", launcher=torchrun(2))))
    assert status == 1 and "\nerror: " in f"\n{err}" and "v.1.png holds 7" in err and "exitcode  : 2" in err
    assert not list((tmp_path / "run").rglob("*"))


def test_datasets_that_draw_their_labels_are_not_checked(coco_root, reads):
    shutil.rmtree(coco_root / "val2017")
    (coco_root / "val2017").mkdir()
    for key in range(1, 6):
        (coco_root / f"val2017/{key:012d}.jpg").write_text("x")
    check_labels(build_dataset("coco", "val", root=str(coco_root)), workers=0, skip_broken=False)
    check_labels(build_dataset("demo", "val"), workers=0, skip_broken=False)
    assert not reads
