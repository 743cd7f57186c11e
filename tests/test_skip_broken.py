"""Files that cannot be decoded: they stop a run, or with --skip-broken it goes on without them, as exactly as ever."""

import json

import numpy as np
import pytest
from running import command, complete, in_process, log, said, torchrun

from benchmarks import kill_resume
from dataloaders import RandomScaleCrop, TrainDataset, build_dataset
from utils.run.checkpoint import read_checkpoint

SKIP = ["--skip-broken", "--epochs", "3"]


@pytest.fixture
def data(folder_root):
    """Of six training images one is cut short and one has a label that is; and one of the two for validation."""
    for name in ("JPEGImages/t.1.jpg", "SegmentationClass/t.4.png", "JPEGImages/v.0.jpg"):
        path = folder_root / name
        path.write_bytes(path.read_bytes()[:200])
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def broken(folder) -> dict:
    content = json.loads((folder / "broken.json").read_text())
    assert content["files"] == len(content["times"])
    return {path.split("/")[-1]: times for path, times in content["times"].items()}


def test_without_the_flag_no_run_begins_where_headers_or_labels_show_it(data, tmp_path, capsys):
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and "t.1.jpg" in line and "replace it" in line and folder is None


def test_without_the_flag_the_run_stops_with_the_path_of_pixels_that_cannot_be_decoded(folder_root, tmp_path, capsys):
    path = folder_root / "JPEGImages/t.1.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and "t.1.jpg" in line and "replace it" in line
    assert folder.is_dir() and not (folder / "broken.json").exists()


def test_with_it_the_run_goes_on_and_lists_what_it_left_out(data, tmp_path, capsys):
    status, folder = in_process(data, tmp_path / "run", *SKIP, "--use-balanced-weights")
    out = capsys.readouterr().out
    times = broken(folder)
    assert status == 0 and set(times) == {"t.1.jpg", "t.4.png", "v.0.jpg"}
    # Each is drawn once an epoch, and again where it was to stand in for the other; validation reads each once
    assert times["t.1.jpg"] >= 3 and times["t.4.png"] >= 3 and times["v.0.jpg"] == 3
    assert out.count("left out: ") == 3 and "3 broken files were left out" in out
    # The score is that of the other validation image alone
    scored = json.loads((folder / "metrics.json").read_text())["per_class"]
    label = np.asarray(build_dataset("folder", "val", root=data[3]).open_label(1))
    assert [row["pixels"] for row in scored.values()] == [int((label == number).sum()) for number in range(3)]


def test_a_stand_in_is_a_function_of_seed_epoch_and_index(data):
    images = build_dataset("folder", "train", root=data[3])
    crop = RandomScaleCrop((33, 33), fill=(0, 0, 0))
    one, two = (TrainDataset(images, crop, seed=1, skip_broken=True) for _ in range(2))
    for epoch in range(3):
        for index in range(6):
            sample = one[epoch, index]
            assert (sample["image"] == two[epoch, index]["image"]).all() and sample["id"] == two[epoch, index]["id"]
            assert (sample["broken"] != "") == (index in (1, 4)) and sample["id"] not in ("t.1", "t.4")
    assert len({one[epoch, 1]["id"] for epoch in range(20)}) > 1  # not always the same one


def test_whole_pictures_look_as_they_do_without_the_flag(data):
    images = build_dataset("folder", "train", root=data[3])
    crop = RandomScaleCrop((33, 33), fill=(0, 0, 0))
    plain, skipping = (TrainDataset(images, crop, seed=1, skip_broken=skip) for skip in (False, True))
    assert (plain[2, 0]["image"] == skipping[2, 0]["image"]).all()


def test_a_set_of_which_nothing_can_be_decoded_stops(data, folder_root, tmp_path, capsys):
    for path in (folder_root / "JPEGImages").glob("t*"):
        path.write_bytes(b"x")
    assert in_process(data, tmp_path / "run", *SKIP)[0] == 2
    assert "images in a row cannot be decoded" in said(capsys.readouterr().err)[-1]


def test_a_wrong_label_still_stops(data, folder_root, tmp_path, capsys):
    (folder_root / "classes.txt").write_text("a\nb\n")
    assert in_process(data, tmp_path / "run", *SKIP)[0] == 2
    assert "holds 2, outside the 2 classes" in said(capsys.readouterr().err)[-1]


@pytest.mark.slow
def test_resume_is_exact_with_it(data, tmp_path):
    _, whole = in_process(data, tmp_path / "whole", *SKIP, "--no-val")
    in_process(data, tmp_path / "parts", *SKIP, "--max-steps", "4", "--no-val")
    _, parts = in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")
    one, two = (read_checkpoint(folder / "checkpoint.pth.tar") for folder in (whole, parts))
    assert kill_resume.differences(one, two) == [] and broken(whole) == broken(parts)


@pytest.mark.slow
def test_workers_and_processes_do_not_matter_with_it(data, tmp_path):
    flags = [*SKIP, "--batch-size", "4", "--freeze-bn", "--dropout", "0"]
    _, one = in_process(data, tmp_path / "one", *flags)
    _, four = in_process(data, tmp_path / "four", *flags, "--workers", "4")
    assert kill_resume.differences(kill_resume.content(one), kill_resume.content(four)) == []
    complete(command(data, tmp_path / "two", *flags, launcher=torchrun(2)))
    two = next((tmp_path / "two").rglob("experiment_0"))
    assert broken(two) == broken(one)
    for row, other in zip(log(one), log(two), strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
