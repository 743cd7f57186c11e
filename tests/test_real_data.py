"""The commands on real photographs and weights beside the project; skipped where these are missing."""

import json

import numpy as np
import pytest
import torch

import evaluate
import train
from dataloaders import build_dataset
from modeling.pretrained.loaded_model import load_model
from utils.inference import Predictor
from utils.run.checkpoint import read_checkpoint


def test_sbd_adds_to_voc_and_no_id_of_voc_val_trains(shared):
    voc, sbd = str(shared / "data/voc/VOC2012"), str(shared / "data/sbd")
    union = build_dataset("pascal", "train", root=voc, use_sbd=True, sbd_root=sbd)
    val = build_dataset("pascal", "val", root=voc)
    assert len(union) == 66 and not set(union.ids) & set(val.ids)
    for index in range(len(union)):
        image, label = union.read(index)
        assert image.size == label.size


@pytest.mark.parametrize(
    ("name", "root", "split", "size"),
    [("pascal", "voc", "val", 67), ("coco", "coco", "val", 80), ("cityscapes", "cityscapes", "train", 12),
     ("folder", "camvid", "val", 101)],
)  # fmt: skip
def test_images_and_labels_can_be_read(shared, name, root, split, size):
    data = build_dataset(name, split, root=str(shared / "data" / root))
    assert len(data) == size
    for index in range(0, size, 7):
        image, label = data.read(index)
        assert image.mode == "RGB" and image.size == label.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "root", "extra"),
    [("pascal", "voc", []), ("pascal", "voc", ["--use-sbd"]), ("coco", "coco", []), ("cityscapes", "cityscapes", [])],
    ids=["pascal", "pascal with SBD", "coco", "cityscapes"],
)
def test_a_run_trains_resumes_and_evaluates_to_its_own_score(shared, tmp_path, name, root, extra):
    data = ["--dataset", name, "--data-root", str(shared / "data" / root)]
    flags = [*data, "--backbone", "mobilenet", "--run-dir", str(tmp_path), "--crop-size", "129", "--batch-size", "4",
             "--backbone-weights", str(shared / "weights/mobilenet_v2_keras.pth")]  # fmt: skip
    if extra:
        flags += [*extra, "--sbd-root", str(shared / "data/sbd")]
    assert train.main([*flags, "--max-steps", "2"]) == 0
    assert train.main([*flags, "--max-steps", "4", "--resume", "auto"]) == 0
    (checkpoint,) = tmp_path.rglob("checkpoint.pth.tar")
    assert read_checkpoint(checkpoint)["step"] == 4
    assert evaluate.main([*data, "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    row = json.loads((checkpoint.parent / "log.jsonl").read_text().splitlines()[-1])
    assert json.loads((tmp_path / "out/metrics.json").read_text())["miou"] == row["val_miou"]


@pytest.fixture
def short_voc(shared, tmp_path):
    """VOC with the first eight of its validation images."""
    source, root = shared / "data/voc/VOC2012", tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(source / name)
    ids = (source / "ImageSets/Segmentation/val.txt").read_text().split()[:8]
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids))
    return root


@pytest.mark.slow
def test_protocols_agree_with_each_other_on_photographs(shared, short_voc, tmp_path):
    """The weights are random, so the scores mean nothing by themselves."""
    network = {"backbone": "mobilenet", "head": "lite", "width": 0.5, "num_classes": 21}
    model = load_model(shared / "parity/tf_mnv2_dm05", network=network).model
    image, _ = build_dataset("pascal", "val", root=str(short_voc)).read(0)
    logits = Predictor(model, torch.device("cpu"))(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
    model.decoder.classifier.bias.data -= logits.mean((0, 2, 3))  # else every pixel gets the same class
    torch.save(
        {"state_dict": model.state_dict(), "config": network | {"out_stride": 16}} | model.preprocessing, tmp_path / "c"
    )

    def metrics(*flags: str) -> dict:
        source = ["--checkpoint", str(tmp_path / "c"), "--dataset", "pascal", "--data-root", str(short_voc)]
        assert evaluate.main([*source, "--workers", "0", "--out", str(tmp_path / "out"), *flags]) == 0
        return json.loads((tmp_path / "out/metrics.json").read_text())

    whole = metrics("--trimap", "1", "8", "10000", "--boundary")
    assert whole["trimap"]["border"] == "void" and whole["trimap"]["miou"]["10000"] == whole["miou"]
    assert whole["per_class"] == metrics("--scales", "1.0")["per_class"]
    assert whole["per_class"] == metrics("--protocol", "slide", "--crop-size", "700")["per_class"]
    for flags in (["--protocol", "slide", "--crop-size", "257"], ["--protocol", "center-crop", "--crop-size", "257"],
                  ["--scales", "0.75", "1.25", "--flip"], ["--out-stride", "8"]):  # fmt: skip
        assert metrics(*flags)["per_class"] != whole["per_class"]
