"""evaluate.py: protocols, the files it writes, submissions to benchmark servers, splits without labels."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import write_network

import evaluate
from dataloaders import build_dataset
from dataloaders.base import open_label
from dataloaders.cityscapes import LABEL_IDS
from predict import Segmenter
from utils.distinct_colors import distinct_palette
from utils.palettes import CITYSCAPES_CLASSES, VOC_CLASSES, voc_palette
from utils.scoring.boundaries import BoundaryIoU, Trimap
from utils.scoring.metrics import ConfusionMatrix
from utils.scoring.plots import plot_confusion
from utils.scoring.visualize import GAP


@pytest.fixture
def run(folder_network, tmp_path, capsys):
    """A function: flags -> (exit status, metrics.json or None, what was printed)."""

    def evaluate_with(*flags: str) -> tuple:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        status = evaluate.main(["--checkpoint", str(folder_network), "--workers", "0", "--out", str(out), *flags])
        metrics = json.loads((out / "metrics.json").read_text()) if (out / "metrics.json").exists() else None
        return status, metrics, capsys.readouterr()

    return evaluate_with


def evaluate_again(network, out, *flags: str) -> int:
    return evaluate.main(["--checkpoint", str(network), "--workers", "0", "--out", str(out), *flags])


def test_files_of_an_earlier_call_do_not_stay_beside_new_ones(folder_network, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate_again(folder_network, out, "--trimap", "2") == 0 and (out / "trimap.png").exists()
    (out / "notes.txt").write_text("mine")
    assert evaluate_again(folder_network, out) == 0
    assert not (out / "trimap.png").exists() and (out / "notes.txt").read_text() == "mine"
    assert "not of this call" not in capsys.readouterr().out
    assert evaluate_again(folder_network, out, "--trimap", "2") == 0 and (out / "trimap.png").exists()


@pytest.mark.parametrize("damage", [
    lambda out: (out / ".evaluate.json").unlink(),
    lambda out: (out / ".evaluate.json").write_text("[1"),
    lambda out: (out / ".evaluate.json").write_text("[]"),
    lambda out: (out / "trimap.png").write_bytes(b"drawn by the user"),
    lambda out: os.utime(out / "trimap.png", (1, 1)),
])  # fmt: skip
def test_a_file_that_may_not_be_of_an_earlier_call_is_kept_and_named(damage, folder_network, tmp_path, capsys):
    out = tmp_path / "out"
    evaluate_again(folder_network, out, "--trimap", "2")
    damage(out)
    content = (out / "trimap.png").read_bytes()
    assert evaluate_again(folder_network, out) == 0
    assert (out / "trimap.png").read_bytes() == content
    assert capsys.readouterr().out.splitlines()[-1] == f"note: not of this call: {out / 'trimap.png'}"


def test_a_manifest_reaches_no_other_folder(folder_network, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other.txt"
    other.write_text("mine")
    out.mkdir()
    entry = [other.stat().st_size, other.stat().st_mtime_ns]
    (out / ".evaluate.json").write_text(json.dumps({"../other.txt": entry, str(other): entry, "..": entry}))
    assert evaluate_again(folder_network, out) == 0 and other.read_text() == "mine"


def test_the_folder_of_a_run_is_refused(folder_network, tmp_path, capsys):
    for name in ("config.json", "log.jsonl", "metrics.json"):
        (tmp_path / name).write_text("{}")
    assert evaluate_again(folder_network, tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("scores would be replaced: give another --out")
    assert (tmp_path / "metrics.json").read_text() == "{}"


SCORES = ("miou", "pixel_accuracy", "mean_class_accuracy", "fwiou", "per_class")


def test_every_protocol_is_named_in_the_results(run):
    _, whole, output = run()
    assert whole["protocol"] == "whole" and whole["scales"] == [1.0] and whole["flip"] is False
    assert "protocol whole, output stride 16, scales 1.0, 2 images" in output.out
    _, same, _ = run("--scales", "1.0")
    assert all(same[name] == whole[name] for name in SCORES)
    _, window, output = run("--protocol", "slide", "--crop-size", "64", "--stride", "9")
    assert window["crop_size"] == [64, 64] and window["stride"] == [9, 9]
    assert "protocol slide, crop size 64x64, stride 9x9, output stride 16" in output.out
    assert all(window[name] == whole[name] for name in SCORES)  # the window is larger than the images
    _, small, _ = run("--protocol", "slide", "--crop-size", "33", "17")
    assert small["crop_size"] == [33, 17] and small["stride"] == [22, 11]
    _, crop, _ = run("--protocol", "center-crop")
    assert crop["protocol"] == "center-crop" and crop["crop_size"] == [33, 33]  # as trained
    assert sum(row["pixels"] for row in crop["per_class"].values()) <= 2 * 33 * 33
    _, many, output = run("--scales", "0.5", "1.5", "--flip")
    assert many["scales"] == [0.5, 1.5] and many["flip"] is True and "scales 0.5 1.5, flip" in output.out
    _, fine, _ = run("--out-stride", "8")
    assert fine["out_stride"] == 8 and fine["miou"] != whole["miou"]


def test_windows_of_the_command_are_height_then_width(run, folder_network, folder_root):
    """Against Segmenter with a window and a stride that are not square."""
    _, metrics, _ = run("--protocol", "slide", "--crop-size", "33", "17", "--stride", "20", "7")
    confusions = []
    for window, stride in (((33, 17), (20, 7)), ((17, 33), (7, 20))):
        segmenter, confusion = Segmenter(folder_network, "cpu", window=window, stride=stride), ConfusionMatrix(3)
        for key in ("v.0", "v.1"):
            prediction = segmenter(folder_root / f"JPEGImages/{key}.jpg").labels
            label = np.array(open_label(folder_root / f"SegmentationClass/{key}.png"))
            confusion.update(torch.from_numpy(prediction), torch.from_numpy(label))
        confusions.append(confusion.scores(("ground", "wall", "sky"))["per_class"])
    assert metrics["per_class"] == confusions[0] != confusions[1]


def test_scores_follow_from_the_saved_predictions(run, folder_root, tmp_path):
    """Every file of --out is computed again from the label PNGs and the saved predictions."""
    saved = tmp_path / "saved"
    _, metrics, _ = run("--save-predictions", str(saved), "--trimap", "1", "3", "--boundary", "0.05")
    plain, bands, outlines = ConfusionMatrix(3), Trimap([1, 3], 3, border="void"), BoundaryIoU(3, ratio=0.05)
    rows = list(csv.DictReader((tmp_path / "out/per_image.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["v.0", "v.1"] and set(rows[0]) == {"id", "miou", "accuracy", "pixels"}
    for row in rows:
        image = Image.open(saved / f"{row['id']}.png")
        assert image.mode == "P" and image.getpalette()[3:6] == list(distinct_palette(["a", "b"])[1])
        prediction = torch.from_numpy(np.array(image))
        label = torch.from_numpy(np.array(open_label(folder_root / f"SegmentationClass/{row['id']}.png")))
        for observer in (bands, outlines):
            observer.update(row["id"], prediction, label)
        plain.update(prediction, label)
        one = ConfusionMatrix(3)
        one.update(prediction, label)
        expected = one.scores("abc")
        assert float(row["miou"]) == expected["miou"] and float(row["accuracy"]) == expected["pixel_accuracy"]
        assert int(row["pixels"]) == (label != 255).sum()
    names = ("ground", "wall", "sky")
    assert metrics["miou"] == plain.scores(names)["miou"] and metrics["per_class"] == plain.scores(names)["per_class"]
    assert metrics["trimap"] == bands.scores(names) and metrics["boundary"] == outlines.scores(names)
    table = list(csv.reader((tmp_path / "out/confusion.csv").read_text().splitlines()))
    assert table[0][1:] == list(names) and [row[0] for row in table[1:]] == list(names)
    assert [[int(count) for count in row[1:]] for row in table[1:]] == plain.counts.tolist()
    for name in ("confusion.png", "trimap.png", "sheet.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 100


def test_trimap_uses_class_borders_where_labels_hold_no_void(run, folder_root):
    _, metrics, output = run("--trimap", "2")
    assert metrics["trimap"]["border"] == "void" and "trimap, void borders" in output.out
    for path in (folder_root / "SegmentationClass").iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 255, 0, label)).save(path)
    _, metrics, output = run("--trimap", "2")
    assert metrics["trimap"]["border"] == "classes" and "trimap, classes borders" in output.out


def test_voc_submissions_have_the_format_of_the_server(voc_root, tmp_path, capsys):
    """The split test has no labels; another split must have them."""
    network = write_network(tmp_path / "voc.pth", VOC_CLASSES, dataset="pascal", data_root=str(voc_root))
    (voc_root / "ImageSets/Segmentation/test.txt").write_text("v0\nv1\n")
    for key in ("v0", "v1"):
        (voc_root / f"SegmentationClass/{key}.png").unlink()
    command = ["--checkpoint", str(network), "--split", "test", "--workers", "0"]
    assert evaluate.main([*command, "--save-predictions", str(tmp_path / "sub")]) == 0
    assert f"pascal test has no labels: nothing can be scored; see {tmp_path / 'sub'}" in capsys.readouterr().out
    folder = tmp_path / "sub/results/VOC2012/Segmentation/comp6_test_cls"
    assert sorted(path.name for path in folder.iterdir()) == ["v0.png", "v1.png"]
    image = Image.open(folder / "v0.png")
    assert image.mode == "P" and image.size == (48, 36)
    assert image.getpalette()[: 3 * 21] == [channel for color in voc_palette(21) for channel in color]
    shutil.rmtree(voc_root / "SegmentationClass")
    assert evaluate.main([*command, "--save-predictions", str(tmp_path / "sub")]) == 0
    assert evaluate.main([*command[:-4], "--split", "val", "--save-predictions", str(tmp_path / "sub")]) == 2


def test_a_split_without_labels_is_not_scored(voc_root, tmp_path, capsys, monkeypatch):
    """With --out there is a sheet of images and predictions; without it no image is read."""
    network = write_network(tmp_path / "voc.pth", VOC_CLASSES, dataset="pascal", data_root=str(voc_root))
    (voc_root / "ImageSets/Segmentation/test.txt").write_text("v0\nv1\n")
    for key in ("v0", "v1"):
        (voc_root / f"SegmentationClass/{key}.png").unlink()
    command, out = ["--checkpoint", str(network), "--split", "test", "--workers", "0"], tmp_path / "out"
    assert evaluate.main([*command, "--out", str(out)]) == 0
    assert f"pascal test has no labels: nothing can be scored; see {out}" in capsys.readouterr().out
    assert {path.name for path in out.glob("[!.]*")} == {"sheet.png", "report.html"}
    width = Image.open(out / "sheet.png").width
    assert width == 2 * (320 // 48 * 48) + 3 * GAP  # without a column for labels
    monkeypatch.setattr(evaluate, "score", None)
    assert evaluate.main(command) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("pascal test has no labels: nothing can be scored; --save-predictions DIR")


def test_cityscapes_submissions_are_label_ids(cityscapes_root, tmp_path, capsys):
    network = write_network(
        tmp_path / "c.pth", CITYSCAPES_CLASSES, dataset="cityscapes", data_root=str(cityscapes_root)
    )
    shutil.copytree(cityscapes_root / "leftImg8bit/val", cityscapes_root / "leftImg8bit/test")
    command = ["--checkpoint", str(network), "--workers", "0", "--save-predictions", str(tmp_path / "sub")]
    assert evaluate.main([*command, "--split", "test"]) == 0
    files = sorted((tmp_path / "sub").iterdir())
    assert [path.name for path in files] == [f"town_{n:06d}_000019_labelIds.png" for n in range(2)]
    assert all(Image.open(path).mode == "L" and set(np.unique(Image.open(path))) <= set(LABEL_IDS) for path in files)


def test_labels_of_a_split_without_labels_are_255(voc_root):
    (voc_root / "ImageSets/Segmentation/test.txt").write_text("x0\n")
    shutil.copy(voc_root / "JPEGImages/t0.jpg", voc_root / "JPEGImages/x0.jpg")
    images = build_dataset("pascal", "test", root=str(voc_root))
    image, label = images.read(0)
    assert not images.has_labels and label.size == image.size and label.getextrema() == (255, 255)
    shutil.copy(voc_root / "SegmentationClass/t0.png", voc_root / "SegmentationClass/x0.png")
    assert build_dataset("pascal", "test", root=str(voc_root)).has_labels


@pytest.mark.parametrize("num_classes", [2, 21, 60])
def test_the_confusion_plot_fills_its_image(tmp_path, num_classes):
    plot_confusion(tmp_path / "c.png", np.eye(num_classes), ["a rather long name"] * num_classes)
    is_inked = np.asarray(Image.open(tmp_path / "c.png").convert("L")) < 250
    rows, columns = (np.flatnonzero(is_inked.any(axis)) for axis in (1, 0))
    for inked, side in ((rows, is_inked.shape[0]), (columns, is_inked.shape[1])):
        assert inked[0] < 20 and inked[-1] >= side - 20 and side < 1500
