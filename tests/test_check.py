"""`python -m dataloaders.check`: all mistakes at once, and counts that equal an independent count."""

import json
import re

import numpy as np
from PIL import Image
from sample_data import save_label

from dataloaders import check


def problems(out: str) -> list[str]:
    return [line.removeprefix("  problem: ") for line in out.splitlines() if line.startswith("  problem: ")]


def test_all_mistakes_are_listed_whatever_the_number_of_workers(folder_root, tmp_path, capsys):
    images, labels = folder_root / "JPEGImages", folder_root / "SegmentationClass"
    (images / "t.0.jpg").unlink()
    (labels / "t.1.png").unlink()
    (images / "t.2.jpg").write_bytes((images / "t.2.jpg").read_bytes()[:300])
    save_label(np.full((36, 48), 9, np.uint8), labels / "t.2.png")  # two mistakes in one pair
    Image.new("RGB", (48, 36)).save(labels / "t.3.png")
    save_label(np.zeros((9, 9), np.uint8), labels / "t.4.png")
    (folder_root / "ImageSets/Segmentation/val.txt").unlink()
    flags = ["--dataset", "folder", "--data-root", str(folder_root)]
    listed = []
    for workers in ("0", "2"):
        assert check.main([*flags, "--workers", workers, "--json", str(tmp_path / "report.json")]) == 2
        out, err = capsys.readouterr()
        listed.append(problems(out))
        assert err.strip().splitlines()[-1].startswith("error: folder: 7 problems")
    assert listed[0] == listed[1]
    wanted = ["no image for id t.0", "t.1.png is missing", "t.2.jpg cannot be read", "t.2.png holds 9",
              "t.3.png is a RGB", "t.4.png is 9x9", "val.txt is missing"]  # fmt: skip
    for text, problem in zip(wanted, listed[0], strict=True):
        assert text in problem
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dataset"] == "folder" and report["splits"]["train"]["problems"] == listed[0][:-1]


def test_counts_equal_an_independent_count(folder_root, tmp_path, capsys):
    save_label(np.full((36, 48), 255, np.uint8), folder_root / "SegmentationClass/t.5.png")
    Image.new("RGB", (30, 20)).save(folder_root / "JPEGImages/t.4.jpg")
    save_label(np.ones((20, 30), np.uint8), folder_root / "SegmentationClass/t.4.png")
    flags = ["--dataset", "folder", "--data-root", str(folder_root), "--split", "train", "--workers", "2"]
    assert check.main([*flags, "--json", str(tmp_path / "report.json")]) == 0
    report = json.loads((tmp_path / "report.json").read_text())["splits"]["train"]
    labels = [np.asarray(Image.open(folder_root / f"SegmentationClass/t.{n}.png")) for n in range(6)]
    for number, name in enumerate(("ground", "wall", "sky")):
        assert report["classes"][name]["pixels"] == sum((label == number).sum() for label in labels)
        assert report["classes"][name]["pictures"] == sum((label == number).any() for label in labels)
    assert report["ignored_pixels"] == sum((label == 255).sum() for label in labels)
    assert report["wholly_ignored"] == ["t.5"] and report["sizes"] == {"48x36": 5, "30x20": 1}
    out = capsys.readouterr().out
    assert "1 images are wholly ignored (255): t.5" in out and "2 sizes: 48x36 (5), 30x20 (1)" in out


def test_a_split_without_labeled_pixels_is_a_problem(folder_root, capsys):
    for path in (folder_root / "SegmentationClass").glob("v*"):
        save_label(np.full((36, 48), 255, np.uint8), path)
    flags = ["--dataset", "folder", "--data-root", str(folder_root), "--workers", "0"]
    assert check.main(flags) == 2
    assert "val: every label is 255 throughout" in problems(capsys.readouterr().out)[0]


def test_every_dataset_can_be_checked(
    voc_root, sbd_root, cityscapes_root, coco_root, ade20k_root, context_root, capsys
):
    for name, root, more in [
        ("pascal", voc_root, ["--use-sbd", "--sbd-root", str(sbd_root)]), ("cityscapes", cityscapes_root, []),
        ("coco", coco_root, []), ("ade20k", ade20k_root, []), ("context", context_root, []),
        ("context", context_root, ["--context-background"]), ("demo", voc_root, []),
    ]:  # fmt: skip
        split = "val" if name == "demo" else "train"
        assert check.main(["--dataset", name, "--data-root", str(root), "--split", split, "--workers", "0", *more]) == 0
    assert "train: 8 images, 0 problems" in capsys.readouterr().out


def test_mistakes_in_classes_txt_do_not_stop_the_check(folder_root, capsys):
    (folder_root / "classes.txt").write_text("a\n\nb\na\n\n")
    (folder_root / "ImageSets/Segmentation/val.txt").write_text("")
    save_label(np.full((36, 48), 9, np.uint8), folder_root / "SegmentationClass/t.2.png")
    assert check.main(["--dataset", "folder", "--data-root", str(folder_root), "--workers", "0"]) == 2
    in_classes = ["blank line 2", "names 'a' twice"]
    wanted = [*in_classes, "t.2.png holds 9", *in_classes, "val.txt lists no"]  # train, then val
    for text, problem in zip(wanted, problems(capsys.readouterr().out), strict=True):
        assert text in problem


def test_every_damaged_outline_is_listed_and_the_other_images_are_checked(coco_root, tmp_path, capsys):
    path = coco_root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [["a"] * 6]
    content["annotations"][3]["segmentation"] = {"size": [80, 100], "counts": [1, 2]}
    content["annotations"][5]["segmentation"].append([1, 2, 3, 4])
    path.write_text(json.dumps(content))
    flags = ["--dataset", "coco", "--data-root", str(coco_root), "--split", "train", "--workers", "0"]
    assert check.main([*flags, "--json", str(tmp_path / "report.json")]) == 2
    report = json.loads((tmp_path / "report.json").read_text())["splits"]["train"]
    assert [re.search(r"outline in image (\d)", problem)[1] for problem in report["problems"]] == ["1", "2"]
    assert report["pictures"] == 3 and report["classes"]["bus"]["pictures"] == 2
    assert any("1 polygons of fewer than 6 numbers" in note for note in report["notes"])
