"""evaluate.py as its user runs it: protocols, files, submissions."""

import csv
import json
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
from utils.palettes import CITYSCAPES_CLASSES, VOC_CLASSES, voc_palette
from utils.scoring.boundaries import BoundaryIoU, Trimap
from utils.scoring.metrics import ConfusionMatrix
from utils.scoring.plots import plot_confusion


@pytest.fixture
def run(folder_network, tmp_path, capsys):
    """Evaluate with these flags; gives (status, metrics or None, output)."""

    def evaluate_with(*flags: str) -> tuple:
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        status = evaluate.main(["--checkpoint", str(folder_network), "--workers", "0", "--out", str(out), *flags])
        metrics = json.loads((out / "metrics.json").read_text()) if (out / "metrics.json").exists() else None
        return status, metrics, capsys.readouterr()

    return evaluate_with


SCORES = ("miou", "pixel_accuracy", "mean_class_accuracy", "fwiou", "per_class")


def test_every_protocol_names_itself(run):
    _, whole, said = run()
    assert whole["protocol"] == "whole" and whole["scales"] == [1.0] and whole["flip"] is False
    assert "protocol whole, output stride 16, scales 1.0, 2 images" in said.out
    _, same, _ = run("--scales", "1.0")
    assert all(same[name] == whole[name] for name in SCORES)
    _, window, said = run("--protocol", "slide", "--crop-size", "64", "--stride", "9")
    assert window["crop_size"] == [64, 64] and window["stride"] == [9, 9]
    assert "protocol slide, crop size 64x64, stride 9x9, output stride 16" in said.out
    assert all(window[name] == whole[name] for name in SCORES)  # larger than the images
    _, small, _ = run("--protocol", "slide", "--crop-size", "33", "17")
    assert small["crop_size"] == [33, 17] and small["stride"] == [22, 11]
    _, crop, _ = run("--protocol", "center-crop")
    assert crop["protocol"] == "center-crop" and crop["crop_size"] == [33, 33]  # as trained
    assert sum(row["pixels"] for row in crop["per_class"].values()) <= 2 * 33 * 33
    _, many, said = run("--scales", "0.5", "1.5", "--flip")
    assert many["scales"] == [0.5, 1.5] and many["flip"] is True and "scales 0.5 1.5, flip" in said.out
    _, fine, _ = run("--out-stride", "8")
    assert fine["out_stride"] == 8 and fine["miou"] != whole["miou"]


def test_files_agree_with_the_predictions_that_are_saved(run, folder_root, tmp_path):
    """Everything in --out again from the label PNGs and the predicted PNGs alone."""
    saved = tmp_path / "saved"
    _, metrics, _ = run("--save-predictions", str(saved), "--trimap", "1", "3", "--boundary", "0.05")
    plain, bands, outlines = ConfusionMatrix(3), Trimap([1, 3], 3, border="void"), BoundaryIoU(3, ratio=0.05)
    rows = list(csv.DictReader((tmp_path / "out/per_image.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["v.0", "v.1"] and set(rows[0]) == {"id", "miou", "accuracy", "pixels"}
    for row in rows:
        image = Image.open(saved / f"{row['id']}.png")
        assert image.mode == "P" and image.getpalette()[3:6] == list(voc_palette(2)[1])
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


def test_trimap_falls_back_to_class_borders_and_says_so(run, folder_root):
    _, metrics, said = run("--trimap", "2")
    assert metrics["trimap"]["border"] == "void" and "trimap, void borders" in said.out
    for path in (folder_root / "SegmentationClass").iterdir():
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 255, 0, label)).save(path)
    _, metrics, said = run("--trimap", "2")
    assert metrics["trimap"]["border"] == "classes" and "trimap, classes borders" in said.out


def test_voc_submissions_are_as_the_server_wants_them(voc_root, tmp_path, capsys):
    """--split test without a single label."""
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


def test_a_split_without_labels_is_no_mistake(voc_root, tmp_path, capsys, monkeypatch):
    """Nothing is scored; images and predictions are shown where --out asks for them, else no image is looked at."""
    network = write_network(tmp_path / "voc.pth", VOC_CLASSES, dataset="pascal", data_root=str(voc_root))
    (voc_root / "ImageSets/Segmentation/test.txt").write_text("v0\nv1\n")
    for key in ("v0", "v1"):
        (voc_root / f"SegmentationClass/{key}.png").unlink()
    command, out = ["--checkpoint", str(network), "--split", "test", "--workers", "0"], tmp_path / "out"
    assert evaluate.main([*command, "--out", str(out)]) == 0
    assert f"pascal test has no labels: nothing can be scored; see {out}" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["sheet.png"]
    assert Image.open(out / "sheet.png").width == 2 * 320 + 6  # without a column for the truth
    monkeypatch.setattr(evaluate, "score", None)
    assert evaluate.main(command) == 0
    said = "has no labels: nothing can be scored; --save-predictions DIR would keep the predictions"
    assert capsys.readouterr().out.splitlines()[-1] == f"pascal test {said}"


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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--stride", "9"], "--crop-size and --stride belong to --protocol center-crop or slide: add it"),
        (["--protocol", "center-crop", "--stride", "9"], "--stride belongs to --protocol slide"),
        (["--protocol", "center-crop", "--crop-size", "33", "65"], "the center crop is square, give N"),
        (["--protocol", "slide", "--crop-size", "33", "--stride", "40"], "leaves gaps between windows of 33x33"),
        (["--protocol", "center-crop", "--save-predictions", "x"], "--save-predictions needs whole images"),
        (["--width", "0.5"], "--width 0.5 contradicts"),
        (["--num-classes", "4"], "does not fill the mobilenet network"),
        (["--split", "nowhere"], "nowhere.txt is missing"),
    ],
)
def test_what_does_not_go_together_is_one_line(run, flags, said):
    status, metrics, output = run(*flags)
    assert status == 2 and metrics is None and said in output.err.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_said(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for flags, said in (
        (["--out", f"{tmp_path}/file/x"], "--out"),
        (["--save-predictions", f"{tmp_path}/file/x"], "--save"),
    ):
        status, _, output = run(*flags)
        assert status == 2 and f"give another {said}" in output.err.splitlines()[-1]


def test_a_split_without_labels_reads_as_ignored(voc_root):
    (voc_root / "ImageSets/Segmentation/test.txt").write_text("x0\n")
    shutil.copy(voc_root / "JPEGImages/t0.jpg", voc_root / "JPEGImages/x0.jpg")
    images = build_dataset("pascal", "test", root=str(voc_root))
    picture, label = images.read(0)
    assert not images.has_labels and label.size == picture.size and label.getextrema() == (255, 255)
    shutil.copy(voc_root / "SegmentationClass/t0.png", voc_root / "SegmentationClass/x0.png")
    assert build_dataset("pascal", "test", root=str(voc_root)).has_labels


@pytest.mark.parametrize("num_classes", [2, 21])
def test_the_confusion_plot_has_no_empty_strip(tmp_path, num_classes):
    plot_confusion(tmp_path / "c.png", np.eye(num_classes), ["a rather long name"] * num_classes)
    is_inked = np.asarray(Image.open(tmp_path / "c.png").convert("L")) < 250
    rows, columns = (np.flatnonzero(is_inked.any(axis)) for axis in (1, 0))
    for inked, side in ((rows, is_inked.shape[0]), (columns, is_inked.shape[1])):
        assert inked[0] < 20 and inked[-1] >= side - 20
