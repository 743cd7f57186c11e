"""Files that cannot be decoded: they stop a run, or --skip-broken leaves them out, reproducibly."""

import json
from pathlib import Path

import numpy as np
import pytest
from running import command, complete, in_process, log, said, torchrun

from benchmarks.kill_resume import content, differences
from dataloaders import RandomScaleCrop, TrainDataset, build_dataset
from utils.run.checkpoint import read_checkpoint

SKIP = ["--skip-broken", "--epochs", "3"]


@pytest.fixture
def data(folder_root):
    """One of six training images is truncated, and the label of another; and one of two validation images."""
    for name in ("JPEGImages/t.1.jpg", "SegmentationClass/t.4.png", "JPEGImages/v.0.jpg"):
        path = folder_root / name
        path.write_bytes(path.read_bytes()[:200])
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def broken(folder) -> dict[str, int]:
    """How often each file was left out, by its name."""
    listed = json.loads((folder / "broken.json").read_text())
    assert listed["files"] == len(listed["times"])
    return {Path(path).name: times for path, times in listed["times"].items()}


def test_without_the_flag_a_broken_header_or_label_is_an_error_before_the_run(data, tmp_path, capsys):
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and "t.1.jpg" in line and "replace it" in line and folder is None


def test_without_the_flag_broken_pixels_stop_the_run_with_their_path(folder_root, tmp_path, capsys):
    path = folder_root / "JPEGImages/t.1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and "t.1.jpg" in line and "replace it" in line
    assert folder.is_dir() and not (folder / "broken.json").exists()


@pytest.mark.slow
def test_with_the_flag_the_run_lists_the_files_it_left_out(data, tmp_path, capsys):
    status, folder = in_process(data, tmp_path / "run", *SKIP, "--use-balanced-weights")
    out = capsys.readouterr().out
    times = broken(folder)
    assert status == 0 and set(times) == {"t.1.jpg", "t.4.png", "v.0.jpg"}
    # An epoch draws each once, and again if it is drawn to replace the other; validation reads each once
    assert times["t.1.jpg"] >= 3 and times["t.4.png"] >= 3 and times["v.0.jpg"] == 3
    assert out.count("left out: ") == 3 and "3 broken files were left out" in out
    # The score is that of the other validation image alone
    scored = json.loads((folder / "metrics.json").read_text())["per_class"]
    label = np.asarray(build_dataset("folder", "val", root=data[3]).open_label(1))
    assert [row["pixels"] for row in scored.values()] == [int((label == number).sum()) for number in range(3)]


def test_the_replacement_is_a_function_of_seed_epoch_and_index(data):
    images = build_dataset("folder", "train", root=data[3])
    crop = RandomScaleCrop((33, 33), fill=(0, 0, 0))
    one, two = (TrainDataset(images, crop, seed=1, skip_broken=True) for _ in range(2))
    for epoch in range(3):
        for index in range(6):
            sample = one[epoch, index]
            assert (sample["image"] == two[epoch, index]["image"]).all() and sample["id"] == two[epoch, index]["id"]
            assert (sample["broken"] != "") == (index in (1, 4)) and sample["id"] not in ("t.1", "t.4")
    assert len({one[epoch, 1]["id"] for epoch in range(20)}) > 1


def test_the_flag_does_not_change_samples_of_whole_images(data):
    images = build_dataset("folder", "train", root=data[3])
    crop = RandomScaleCrop((33, 33), fill=(0, 0, 0))
    plain, skipping = (TrainDataset(images, crop, seed=1, skip_broken=skip) for skip in (False, True))
    assert (plain[2, 0]["image"] == skipping[2, 0]["image"]).all()


def test_a_dataset_without_a_readable_image_stops(data, folder_root, tmp_path, capsys):
    for path in (folder_root / "JPEGImages").glob("t*"):
        path.write_bytes(b"x")
    assert in_process(data, tmp_path / "run", *SKIP)[0] == 2
    assert "images in a row cannot be decoded" in said(capsys.readouterr().err)[-1]


def test_a_wrong_label_value_stops_with_the_flag_too(data, folder_root, tmp_path, capsys):
    (folder_root / "classes.txt").write_text("a\nb\n")
    assert in_process(data, tmp_path / "run", *SKIP)[0] == 2
    assert "holds 2, outside the 2 classes" in said(capsys.readouterr().err)[-1]


@pytest.mark.slow
def test_a_resumed_run_is_exact_with_the_flag(data, tmp_path):
    _, whole = in_process(data, tmp_path / "whole", *SKIP, "--no-val")
    in_process(data, tmp_path / "parts", *SKIP, "--max-steps", "4", "--no-val")
    _, parts = in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")
    one, two = (read_checkpoint(folder / "checkpoint.pth.tar") for folder in (whole, parts))
    assert differences(one, two) == [] and broken(whole) == broken(parts)


@pytest.mark.slow
def test_workers_and_processes_change_nothing_with_the_flag(data, tmp_path):
    flags = [*SKIP, "--batch-size", "4", "--freeze-bn", "--dropout", "0"]
    _, one = in_process(data, tmp_path / "one", *flags)
    _, four = in_process(data, tmp_path / "four", *flags, "--workers", "4")
    assert differences(content(one), content(four)) == []
    complete(command(data, tmp_path / "two", *flags, launcher=torchrun(2)))
    two = next((tmp_path / "two").rglob("experiment_0"))
    assert broken(two) == broken(one)
    for row, other in zip(log(one), log(two), strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
