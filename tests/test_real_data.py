"""The commands on real photographs and weights that lie beside the project; skipped where they do not."""

import json

import pytest

import evaluate
import train
from dataloaders import build_dataset
from utils.checkpoint import read_checkpoint


def test_sbd_union_has_no_id_of_voc_val_and_66_pictures(shared):
    voc, sbd = str(shared / "data/voc/VOC2012"), str(shared / "data/sbd")
    union = build_dataset("pascal", "train", root=voc, use_sbd=True, sbd_root=sbd)
    val = build_dataset("pascal", "val", root=voc)
    assert len(union) == 66 and not set(union.ids) & set(val.ids)
    for index in range(len(union)):
        picture, label = union.read(index)
        assert picture.size == label.size


@pytest.mark.parametrize(
    ("name", "root", "split", "size"),
    [("pascal", "voc", "val", 67), ("coco", "coco", "val", 80), ("cityscapes", "cityscapes", "train", 12),
     ("folder", "camvid", "val", 101)],
)  # fmt: skip
def test_every_picture_reads(shared, name, root, split, size):
    data = build_dataset(name, split, root=str(shared / "data" / root))
    assert len(data) == size
    for index in range(0, size, 7):
        picture, label = data.read(index)
        assert picture.mode == "RGB" and picture.size == label.size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "root", "extra"),
    [("pascal", "voc", []), ("pascal", "voc", ["--use-sbd"]), ("coco", "coco", []), ("cityscapes", "cityscapes", [])],
    ids=["pascal", "pascal with SBD", "coco", "cityscapes"],
)
def test_train_validate_resume_evaluate(shared, tmp_path, name, root, extra):
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
