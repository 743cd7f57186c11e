"""Bad input: one line that names the file or value and the fix, exit status 2, nothing begun, nothing overwritten.

One table. Where the mistake lies in the data, `python -m dataloaders.check` must name it too.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_tools
from running import begin, command, end, in_process, said
from sample_data import box, run_lengths, save_label
from scipy.io import savemat

from dataloaders import build_dataset
from dataloaders import check as checker
from utils.class_weights import count_pixels
from utils.run.checkpoint import read_checkpoint, write_checkpoint


class Case(NamedTuple):
    """`damage(root)` makes the mistake in the data of `dataset`; `said` must stand in the line, in its order."""

    name: str
    said: tuple[str, ...]
    dataset: str = "folder"
    damage: Callable[[Path], object] = lambda root: None
    flags: tuple[str, ...] = ()


def picture(root: Path) -> Path:
    return root / "JPEGImages/t.0.jpg"


def label(root: Path) -> Path:
    return root / "SegmentationClass/t.0.png"


def labels_of(value: int) -> Callable:
    return lambda root: [save_label(np.full((36, 48), value, np.uint8), p) for p in root.glob("SegmentationClass/t*")]


def in_every(pattern: str, write: Callable[[Path], object]) -> Callable:
    """Every file, so that the first batch meets it."""
    return lambda root: [write(path) for path in sorted(root.glob(pattern))]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def cut_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def two_classes(root: Path) -> None:
    (root / "classes.txt").write_text("no\nyes\n")
    for path in root.glob("SegmentationClass/*"):
        save_label(np.where(np.eye(36, 48) > 0, 255, 0).astype(np.uint8), path)


def text(name: str, content: str | bytes) -> Callable:
    content = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(content)


def without(name: str) -> Callable:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


TRAIN, ANNOTATIONS = "ImageSets/Segmentation/train.txt", "annotations/instances_train2017.json"


def annotations(change: Callable[[dict], object], name: str = ANNOTATIONS) -> Callable:
    def damage(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return damage


def outline(segmentation: object) -> Callable:
    return annotations(lambda content: content["annotations"][0].update(segmentation=segmentation))


def other_root(dataset: str) -> Callable:
    """Puts another dataset's layout where this one's is."""
    layouts = {"cityscapes": "leftImg8bit/train/x", "coco": "annotations", "pascal": "JPEGImages"}

    def damage(root: Path) -> None:
        shutil.rmtree(root)
        (root / layouts[dataset]).mkdir(parents=True)
        if dataset == "coco":
            (root / ANNOTATIONS).write_text("{}")

    return damage


def wide(path: Path) -> None:
    Image.fromarray(np.full((36, 48), 1, np.uint16)).save(path)


def colors(path: Path) -> None:
    Image.new("RGB", (48, 36)).save(path)


def small(path: Path) -> None:
    save_label(np.zeros((20, 24), np.uint8), path)


def invalid(path: Path) -> None:
    save_label(np.full((36, 48), 7, np.uint8), path)


def no_segmentation(path: Path) -> None:
    savemat(path, {"other": np.zeros(3)})


LABELS, PICTURES = "SegmentationClass/t*", "JPEGImages/t*"
LAYOUT = [
    Case("missing root", ("no folder", "--data-root DIR", "DEEPLAB_FOLDER_ROOT", "mypath.py"), damage=shutil.rmtree),
    Case("missing VOC root", ("no folder", "--data-root DIR", "mypath.py"), "pascal", shutil.rmtree),
    Case("missing Cityscapes root", ("no folder", "--data-root DIR"), "cityscapes", shutil.rmtree),
    Case("missing COCO root", ("no file", "instances_train2017.json", "--data-root DIR"), "coco", shutil.rmtree),
    Case("Cityscapes given as VOC", ("layout of cityscapes", "--dataset cityscapes"), "pascal",
         other_root("cityscapes")),
    Case("COCO given as Cityscapes", ("layout of coco", "--dataset coco"), "cityscapes", other_root("coco")),
    Case("VOC given as own data", ("classes.txt is missing", "--dataset pascal"), "folder", other_root("pascal")),
    Case("own data given as VOC", ("classes.txt", "--dataset folder"), "pascal", text("classes.txt", "a\nb\n")),
    Case("split missing", ("train.txt is missing", "one a line"), damage=without(TRAIN)),
    Case("split empty", ("train.txt lists no image", "one id a line"), damage=text(TRAIN, "\r\n\n")),
    Case("split not text", ("train.txt cannot be read as text", "UTF-8"), damage=text(TRAIN, b"\xff\xfe\x00t")),
    Case("id without image", ("no image for id t.0", "add it"), damage=lambda root: picture(root).unlink()),
    Case("two images of an id", ("t.0.jpg and ", "t.0.png both are of id t.0", "take one of them out"),
         damage=lambda root: shutil.copy(label(root), picture(root).with_suffix(".png"))),
    Case("id without label", ("t.0.png is missing", "add it"), damage=lambda root: label(root).unlink()),
    Case("town without labels", ("gtFine_labelIds.png is missing", "unpack"), "cityscapes",
         lambda root: next(root.glob("gtFine/train/*/*")).unlink()),
    Case("classes missing", ("classes.txt is missing", "write the class names"), damage=without("classes.txt")),
    Case("class twice", ("classes.txt names 'a' twice", "one line a class"), damage=text("classes.txt", "a\nb\na\n")),
    Case("blank class", ("classes.txt has a blank line 2", "take it out"), damage=text("classes.txt", "a\n\nb\n")),
    Case("255 classes", ("classes.txt names 255", "2 to 254"),
         damage=text("classes.txt", "\n".join(map(str, range(255))))),
    Case("labels of 0 and 255", ("only 0 and 255", "'yes' is 1", "write 1 in place of 255"), damage=two_classes),
]  # fmt: skip
PAIRS = [
    Case("image truncated", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
         damage=in_every(PICTURES, cut_end)),
    Case("image's header truncated", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
         damage=in_every(PICTURES, cut)),
    Case("no image", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
         damage=in_every(PICTURES, lambda path: path.write_text("no image"))),
    Case("16-bit image", ("JPEGImages/t.", "more than 8 bits"), damage=in_every(PICTURES, lambda path: (
        path.unlink(), wide(path.with_suffix(".png"))))),
    Case("label truncated", ("SegmentationClass/t.", "cannot be read as an image"), damage=in_every(LABELS, cut)),
    Case("label in RGB", ("SegmentationClass/t.", "is a RGB image", "gray or palette PNG"),
         damage=in_every(LABELS, colors)),
    Case("16-bit label", ("SegmentationClass/t.", "is a 16-bit image", "8-bit"), damage=in_every(LABELS, wide)),
    Case("label of another size", ("SegmentationClass/t.", "24x20", "48x36", "one size"),
         damage=in_every(LABELS, small)),
    Case("value outside the classes", ("SegmentationClass/t.", "holds 7", "3 classes 0..2", "correct the label"),
         damage=in_every(LABELS, invalid)),
]  # fmt: skip
COCO = [
    Case("annotations damaged", ("instances_train2017.json is no whole JSON", "get it again"), "coco",
         lambda root: cut(root / ANNOTATIONS)),
    Case("annotations of another kind", ("instances_train2017.json holds a list",), "coco", text(ANNOTATIONS, "[1]")),
    Case("no categories", ("instances_train2017.json has no categories",), "coco",
         annotations(lambda content: content.pop("categories"))),
    Case("foreign categories", ("none of COCO's categories",), "coco",
         annotations(lambda content: content.update(categories=[{"id": 999, "name": "x"}]))),
    Case("image unlisted", ("annotates the image 77",), "coco",
         annotations(lambda content: content["annotations"][0].update(image_id=77))),
    Case("outline of nothing", ("in image 1 that is no polygons and no run lengths", "correct it"), "coco", outline(5)),
    Case("outline without polygons", ("is no polygons",), "coco", outline([])),
    Case("polygon of text", ("in image 1 that holds other than coordinates",), "coco", outline([["a"] * 6])),
    Case("polygon far away", ("in image 1 that holds other than coordinates",), "coco", outline([[1e9] * 6])),
    Case("polygon of seven numbers", ("in image 1 that has an odd number",), "coco", outline([[1, 2, 3, 4, 5, 6, 7]])),
    Case("run lengths of another size", ("has the size [80, 101], not the image's [80, 100]",), "coco",
         outline({"size": [80, 101], "counts": [8080]})),
    Case("run lengths too short", ("do not fill the image",), "coco", outline({"size": [80, 100], "counts": [9, 9]})),
    Case("run lengths that are none", ("do not fill the image",), "coco",
         outline({"size": [80, 100], "counts": "garbage!!"})),
    Case("run lengths cut off", ("do not fill the image",), "coco", outline({"size": [80, 100], "counts": "P0"})),
    Case("image without size", ("lists an image without file_name, height, id, width",), "coco",
         annotations(lambda content: content["images"][0].update(height="80"))),
    Case("image missing from disk", ("000000000004.jpg is missing", "unpack"), "coco",
         without("train2017/000000000004.jpg")),
]  # fmt: skip
SBD = [
    Case("no GTcls", (".mat holds no GTcls.Segmentation", "SBD's cls/ files"), "sbd",
         in_every("cls/*.mat", no_segmentation)),
    Case("damaged .mat", (".mat cannot be read as a MATLAB file",), "sbd",
         in_every("cls/*.mat", lambda path: path.write_text("x"))),
    Case("SBD without a label", ("s0.mat is missing", "add it"), "sbd", without("cls/s0.mat")),
    Case("SBD elsewhere", ("no img/ and cls/", "--sbd-root DIR"), "sbd", shutil.rmtree),
]  # fmt: skip


def flag(said: str, *flags: str) -> Case:
    return Case(" ".join(flags), tuple(said.split(" | ")), flags=flags)


FLAGS = [
    flag("--backbone | 'vgg' | mobilenet", "--backbone", "vgg"),
    flag("--dataset | 'ade' | pascal", "--dataset", "ade"),
    flag("--lr-scheduler | 'exp' | poly", "--lr-scheduler", "exp"),
    flag("--lr: '-1' is not a number above 0", "--lr", "-1"),
    flag("--lr: 'fast' is not a number above 0", "--lr", "fast"),
    flag("--lr: 'nan' is not", "--lr", "nan"),
    flag("--weight-decay: '-0.1' is not a number", "--weight-decay", "-0.1"),
    flag("--momentum: '1' is not a number from 0 to below 1", "--momentum", "1"),
    flag("--gpu-ids is gone | CUDA_VISIBLE_DEVICES | torchrun", "--gpu-ids", "0,1"),
    flag("--no-cuda is gone | --device cpu", "--no-cuda"),
    flag("--start_epoch is gone | --resume", "--start_epoch", "3"),
    flag("--test-batch-size is gone | leave it out", "--test-batch-size", "4"),
    flag("6 training images are fewer than --batch-size 7 | lower it", "--batch-size", "7"),
    flag("--batch-size 1 leaves batch norm 1 image | --freeze-bn", "--batch-size", "1"),
    flag("--batch-size 3 cannot be dealt to 1 processes x 2 parts | multiple of 2",
         "--batch-size", "3", "--accumulate", "2"),
    flag("--sync-bn works on GPUs alone | leave it out", "--sync-bn"),
    flag("no file /nowhere/c.pth", "--resume", "/nowhere/c.pth"),
    flag("cannot make a run folder in /dev/null | --run-dir", "--run-dir", "/dev/null/run"),
]  # fmt: skip
if not torch.cuda.is_available():
    FLAGS.append(flag("--device cuda | --device auto or cpu", "--device", "cuda"))


@pytest.fixture
def roots(request):
    """Flags and root folder of a dataset."""

    def find(name: str) -> tuple[list[str], Path]:
        if name == "sbd":
            voc, sbd = request.getfixturevalue("voc_root"), request.getfixturevalue("sbd_root")
            return ["--dataset", "pascal", "--data-root", str(voc), "--use-sbd", "--sbd-root", str(sbd)], sbd
        root = request.getfixturevalue({"pascal": "voc"}.get(name, name) + "_root")
        return ["--dataset", name, "--data-root", str(root)], root

    return find


def holds(line: str, parts: tuple[str, ...]) -> bool:
    place = 0
    for part in parts:
        place = line.find(part, place)
        if place < 0:
            return False
    return True


@pytest.mark.parametrize("case", LAYOUT + COCO + FLAGS + PAIRS + SBD, ids=lambda case: case.name)
def test_bad_input_is_one_line_with_the_fix(case, roots, tmp_path, capsys):
    data, root = roots(case.dataset)
    case.damage(root)
    (tmp_path / "run/folder/x/experiment_0").mkdir(parents=True)
    status, _ = in_process(data, tmp_path / "run", "--epochs", "1", *case.flags)
    lines = said(capsys.readouterr().err)
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and holds(lines[0], case.said), lines
    # Pixels that cannot be decoded are met when they are read; every other mistake before a run begins
    begun = [path for path in (tmp_path / "run").rglob("experiment_*") if any(path.iterdir())]
    assert not begun or case is PAIRS[0]
    assert not list((tmp_path / "run").rglob("checkpoint*"))


@pytest.mark.parametrize("case", LAYOUT + PAIRS + COCO + SBD, ids=lambda case: case.name)
def test_the_checker_says_the_same(case, roots, capsys):
    data, root = roots(case.dataset)
    case.damage(root)
    assert checker.main([*data, "--split", "train", "--workers", "0"]) == 2
    out, err = capsys.readouterr()
    problems = [line.removeprefix("  problem: ") for line in out.splitlines() if line.startswith("  problem: ")]
    assert any(holds(problem, case.said) for problem in problems), out
    assert "would stop or spoil a training run" in said(err)[-1]


def test_another_backbone_or_class_count_on_resume_says_both(folder_root, tmp_path, capsys):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    _, folder = in_process(data, tmp_path / "run", "--max-steps", "1", "--no-val")
    path = str(folder / "checkpoint.pth.tar")
    capsys.readouterr()
    assert in_process(data, tmp_path / "run", "--resume", path, "--backbone", "resnet50")[0] == 2
    assert holds(said(capsys.readouterr().err)[-1], ("--backbone resnet50", "mobilenet", "--ft"))
    (folder_root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert in_process(data, tmp_path / "run", "--resume", path)[0] == 2
    assert holds(said(capsys.readouterr().err)[-1], ("has 3 classes", "the data 4", "--ft"))


def test_a_configuration_that_is_none_is_refused(folder_root, tmp_path, capsys):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    _, folder = in_process(data, tmp_path / "run", "--max-steps", "1", "--no-val")
    path = folder / "checkpoint.pth.tar"
    write_checkpoint(path, read_checkpoint(path) | {"config": "backbone=resnet"})
    capsys.readouterr()
    assert in_process(data, tmp_path / "run", "--resume", str(path))[0] == 2
    assert "--ft" in said(capsys.readouterr().err)[-1]


def resave(mode: str) -> Callable:
    def change(root: Path) -> None:
        for path in root.glob(PICTURES):
            image = Image.open(path).convert(mode)
            path.unlink()
            image.save(path.with_suffix(".tif"))

    return change


def one_high(root: Path) -> None:
    for path in root.glob("JPEGImages/*"):
        Image.open(path).resize((48, 1)).save(path)
    for path in root.glob("SegmentationClass/*"):
        save_label(np.asarray(Image.open(path))[5:6], path)  # the first row is ignored


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in root.glob("JPEGImages/*"):
        Image.open(path).save(path, exif=exif)


def windows_ends(root: Path) -> None:
    for path in [*root.glob("ImageSets/Segmentation/*"), root / "classes.txt"]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")


def slow(*values) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("change", "flags"),
    [slow(resave("L"), []), slow(resave("RGBA"), []), slow(resave("CMYK"), []), slow(turned, []), (one_high, []),
     (windows_ends, []), slow(lambda root: None, ["--crop-size", "129"])],
    ids=["gray", "RGBA", "CMYK", "EXIF-turned", "one pixel high", "Windows line ends", "crop larger than the image"],
)  # fmt: skip
def test_this_just_works(change, flags, folder_root, tmp_path, capsys):
    change(folder_root)
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    assert in_process(data, tmp_path / "run", "--epochs", "1", *flags)[0] == 0
    assert checker.main([*data, "--workers", "0"]) == 0


def test_outlines_of_every_kind_are_drawn_and_short_polygons_left_out(coco_root, capsys):
    mask = np.zeros((80, 100), np.uint8)
    mask[10:40, 20:60] = 1
    compressed = mask_tools.encode(np.asfortranarray(mask))
    outlines = {
        1: [[1.0, 2.0], box(10, 10, 60, 60), [1, 2, 3, 4]],
        2: {"size": [80, 100], "counts": compressed["counts"].decode()},
        3: {"size": [80, 100], "counts": run_lengths(mask)},
        4: [[5.0, 6.0, 7.0, 8.0]],
    }

    def change(content: dict) -> None:
        content["annotations"] = [
            {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": outline}
            for n, outline in outlines.items()
        ]

    annotations(change, "annotations/instances_val2017.json")(coco_root)
    data = build_dataset("coco", "val", root=str(coco_root))
    assert "3 polygons of fewer than 6 numbers are left out" in capsys.readouterr().out
    drawn = [np.asarray(data.read(index)[1]) for index in range(4)]
    assert (drawn[0][12:58, 12:58] == 15).all() and not drawn[3].any()
    for part in drawn[1:3]:
        assert np.array_equal(part, mask * 15)


@pytest.mark.parametrize("call", ["count_pixels", "keys_with_enough"])
def test_an_error_closes_the_bar_so_that_its_line_stands_alone_and_last(call, coco_root, monkeypatch, capsys):
    data = build_dataset("coco", "val", root=str(coco_root))
    monkeypatch.setattr(type(data), "draw", lambda *_: int("no number"))
    with pytest.raises(ValueError, match="no number") as kept:  # as train.py keeps the error while it prints
        data.keys_with_enough() if call == "keys_with_enough" else count_pixels(data, skip_broken=False)
    print("error: the line", file=sys.stderr)
    assert kept and capsys.readouterr().err.split("\n")[-2:] == ["error: the line", ""]


def test_the_error_is_the_last_line_of_a_process(coco_root, tmp_path):
    outline([["a"] * 6])(coco_root)
    status, _, err = end(begin(command(["--dataset", "coco", "--data-root", str(coco_root)], tmp_path / "run")))
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
