"""Bad input to a command: exit status 2, and one line that names the file or value and the fix.

The tables here are the one place for mistakes in data and flags. `python -m dataloaders.check` must report the mistakes
in data too.
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
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

import evaluate
import predict
from dataloaders import build_dataset, prepare
from dataloaders import check as checker
from modeling import cost
from modeling import weights as weights_command
from utils.class_weights import count_pixels
from utils.errors import RunFailed, UserError
from utils.flags import flag, run_command
from utils.run.checkpoint import read_checkpoint, write_checkpoint


class Case(NamedTuple):
    """`damage(root)` makes the mistake in the data of `dataset`; the error must contain `parts`, in this order."""

    name: str
    parts: tuple[str, ...]
    dataset: str = "folder"
    damage: Callable[[Path], object] = lambda root: None
    flags: tuple[str, ...] = ()


LABELS, IMAGES = "SegmentationClass/t*", "JPEGImages/t*"
TRAIN, ANNOTATIONS = "ImageSets/Segmentation/train.txt", "annotations/instances_train2017.json"


def first_image(root: Path) -> Path:
    return root / "JPEGImages/t.0.jpg"


def first_label(root: Path) -> Path:
    return root / "SegmentationClass/t.0.png"


def in_every(pattern: str, write: Callable[[Path], object]) -> Callable:
    """Damages every file, so that the first batch contains one."""
    return lambda root: [write(path) for path in sorted(root.glob(pattern))]


def keep_start(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def cut_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def two_classes(root: Path) -> None:
    """Labels of 0 and 255 for the classes no and yes."""
    (root / "classes.txt").write_text("no\nyes\n")
    for path in root.glob("SegmentationClass/*"):
        save_label(np.where(np.eye(36, 48) > 0, 255, 0).astype(np.uint8), path)


def numbers_from_1(root: Path) -> None:
    """Labels of 1, 2 and 255 for three classes."""
    for path in root.glob("SegmentationClass/*"):
        label = np.asarray(Image.open(path))
        save_label(np.where(label == 0, 255, label).astype(np.uint8), path)


def text(name: str, content: str | bytes) -> Callable:
    content = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(content)


def without(name: str) -> Callable:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def annotations(change: Callable[[dict], object], name: str = ANNOTATIONS) -> Callable:
    def damage(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return damage


def outline(segmentation: object) -> Callable:
    return annotations(lambda content: content["annotations"][0].update(segmentation=segmentation))


def other_root(dataset: str) -> Callable:
    """Replaces the folder by one with the layout of another dataset."""
    layouts = {"cityscapes": "leftImg8bit/train/x", "coco": "annotations", "pascal": "JPEGImages",
               "ade20k": "annotations/training", "context": "SegmentationClassContext"}  # fmt: skip

    def damage(root: Path) -> None:
        shutil.rmtree(root)
        (root / layouts[dataset]).mkdir(parents=True)
        if dataset == "coco":
            (root / ANNOTATIONS).write_text("{}")

    return damage


def images_and_masks(root: Path) -> None:
    (root / "JPEGImages").rename(root / "images")
    (root / "SegmentationClass").rename(root / "masks")
    shutil.rmtree(root / "ImageSets")


def save_16_bit(path: Path) -> None:
    Image.fromarray(np.full((36, 48), 1, np.uint16)).save(path)


def replace_by_16_bit(path: Path) -> None:
    path.unlink()
    save_16_bit(path.with_suffix(".png"))


def save_rgb(path: Path) -> None:
    Image.new("RGB", (48, 36)).save(path)


def save_small(path: Path) -> None:
    save_label(np.zeros((20, 24), np.uint8), path)


def save_class_7(path: Path) -> None:
    save_label(np.full((36, 48), 7, np.uint8), path)


def save_other_matrix(path: Path) -> None:
    savemat(path, {"other": np.zeros(3)})


LAYOUT = [
    Case("missing root", ("no folder", "--data-root DIR", "DEEPLAB_FOLDER_ROOT", "mypath.py", "dataloaders.convert"),
         damage=shutil.rmtree),
    Case("missing VOC root", ("no folder", "run python -m dataloaders.prepare pascal", "--data-root DIR", "mypath.py"),
         "pascal", shutil.rmtree),
    Case("missing Cityscapes root", ("no folder", "run python -m dataloaders.prepare cityscapes", "--data-root DIR"),
         "cityscapes", shutil.rmtree),
    Case("missing COCO root", ("no file", "instances_train2017.json", "run python -m dataloaders.prepare coco",
                               "--data-root DIR"), "coco", shutil.rmtree),
    Case("Cityscapes given as VOC", ("layout of cityscapes", "--dataset cityscapes"), "pascal",
         other_root("cityscapes")),
    Case("COCO given as Cityscapes", ("layout of coco", "--dataset coco"), "cityscapes", other_root("coco")),
    Case("missing ADE20K root", ("no folder", "ADEChallengeData2016/", "--data-root DIR", "DEEPLAB_ADE20K_ROOT"),
         "ade20k", shutil.rmtree),
    Case("ADE20K without images", ("holds no *.jpg", "unpack ADEChallengeData2016.zip"), "ade20k",
         lambda root: [path.unlink() for path in root.glob("images/training/*")]),
    Case("ADE20K image without label", ("annotations/training/ADE_train_00000001.png is missing", "unpack"), "ade20k",
         without("annotations/training/ADE_train_00000001.png")),
    Case("missing Pascal Context root", ("no folder", "VOC2010/", "--data-root DIR", "DEEPLAB_CONTEXT_ROOT"), "context",
         shutil.rmtree),
    Case("Pascal Context without lists", ("ImageSets/SegmentationContext", "dataloaders.prepare context"), "context",
         without("ImageSets/SegmentationContext")),
    Case("Pascal Context without labels", ("SegmentationClassContext", "beside JPEGImages/", "--data-root DIR"),
         "context", without("SegmentationClassContext")),
    Case("ADE20K given as COCO", ("layout of ade20k", "--dataset ade20k"), "coco", other_root("ade20k")),
    Case("Pascal Context given as Cityscapes", ("layout of context", "--dataset context"), "cityscapes",
         other_root("context")),
    Case("VOC given as own data", ("classes.txt is missing", "--dataset pascal"), "folder", other_root("pascal")),
    Case("own data given as VOC", ("classes.txt", "--dataset folder"), "pascal", text("classes.txt", "a\nb\n")),
    Case("split missing", ("train.txt is missing", "one a line"), damage=without(TRAIN)),
    Case("split empty", ("train.txt lists no image", "one id a line"), damage=text(TRAIN, "\r\n\n")),
    Case("split not text", ("train.txt cannot be read as text", "UTF-8"), damage=text(TRAIN, b"\xff\xfe\x00t")),
    Case("id without image", ("no image for id t.0", "add it"), damage=lambda root: first_image(root).unlink()),
    Case("two images of an id", ("t.0.jpg and ", "t.0.png both have the id t.0", "remove one of them"),
         damage=lambda root: shutil.copy(first_label(root), first_image(root).with_suffix(".png"))),
    Case("id without label", ("t.0.png is missing", "add it"), damage=lambda root: first_label(root).unlink()),
    Case("Cityscapes image without label", ("gtFine_labelIds.png is missing", "unpack"), "cityscapes",
         lambda root: next(root.glob("gtFine/train/*/*")).unlink()),
    Case("classes missing", ("classes.txt is missing", "write the class names"), damage=without("classes.txt")),
    Case("class listed twice", ("classes.txt names 'a' twice", "one line a class"),
         damage=text("classes.txt", "a\nb\na\n")),
    Case("blank line among the classes", ("classes.txt has a blank line 2", "delete it"),
         damage=text("classes.txt", "a\n\nb\n")),
    Case("one class", ("classes.txt names 1", "2 to 254"), damage=text("classes.txt", "a\n")),
    Case("255 classes", ("classes.txt names 255", "2 to 254"),
         damage=text("classes.txt", "\n".join(map(str, range(255))))),
    Case("color for one class only", ("classes.txt gives no color for 'b'", "in every line, or in none"),
         damage=text("classes.txt", "a 1 2 3\nb\nc 4 5 6\n")),
    Case("color above 255", ("gives 'b' the color 0,0,256", "0 to 255"),
         damage=text("classes.txt", "a 1 2 3\nb 0 0 256\nc 4 5 6\n")),
    Case("labels of 0 and 255", ("only 0 and 255", "'yes' is 1", "write 1 in place of 255", "--values 0 255"),
         damage=two_classes),
    Case("images/ and masks/ without lists", ("train.txt is missing", "python -m dataloaders.convert"),
         damage=images_and_masks),
    Case("images/ without masks/", ("no folder", "SegmentationClass/ or masks/", "beside images/"),
         damage=lambda root: [images_and_masks(root), text("train.txt", "t.0\n")(root), without("masks")(root)]),
]  # fmt: skip
TRUNCATED_PIXELS = Case("truncated image", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
                        damage=in_every(IMAGES, cut_end))  # fmt: skip
PAIRS = [
    TRUNCATED_PIXELS,
    Case("truncated header of an image", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
         damage=in_every(IMAGES, keep_start)),
    Case("text as image", ("JPEGImages/t.", "cannot be read as an image", "replace it"),
         damage=in_every(IMAGES, lambda path: path.write_text("no image"))),
    Case("16-bit image", ("JPEGImages/t.", "more than 8 bits"), damage=in_every(IMAGES, replace_by_16_bit)),
    Case("truncated label", ("SegmentationClass/t.", "cannot be read as an image"),
         damage=in_every(LABELS, keep_start)),
    Case("RGB label", ("SegmentationClass/t.", "is a RGB image", "gray or palette PNG", "dataloaders.convert"),
         damage=in_every(LABELS, save_rgb)),
    Case("16-bit label", ("SegmentationClass/t.", "is a 16-bit image", "8-bit"),
         damage=in_every(LABELS, save_16_bit)),
    Case("label of another size", ("SegmentationClass/t.", "24x20", "48x36", "one size"),
         damage=in_every(LABELS, save_small)),
    Case("value that is no class", ("SegmentationClass/t.", "holds 7", "3 classes 0..2", "correct the label"),
         damage=in_every(LABELS, save_class_7)),
    Case("value above ADE20K's classes", ("annotations/training", "holds 151", "1..150 (0, 255: ignored)"), "ade20k",
         in_every("annotations/training/*", lambda path: save_label(np.full((36, 48), 151, np.uint8), path))),
    Case("value above Pascal Context's classes", ("t0.png holds 60", "59 classes 1..59", "correct the label"),
         "context", in_every("*Context/t*", lambda path: save_label(np.full((36, 48), 60, np.uint8), path))),
]  # fmt: skip
COCO = [
    Case("truncated annotations", ("instances_train2017.json is not a complete JSON", "download it again"), "coco",
         lambda root: keep_start(root / ANNOTATIONS)),
    Case("annotations are a list", ("instances_train2017.json holds a list",), "coco", text(ANNOTATIONS, "[1]")),
    Case("no categories", ("instances_train2017.json has no categories",), "coco",
         annotations(lambda content: content.pop("categories"))),
    Case("foreign categories", ("none of COCO's categories",), "coco",
         annotations(lambda content: content.update(categories=[{"id": 999, "name": "x"}]))),
    Case("annotation of an unlisted image", ("annotates the image 77",), "coco",
         annotations(lambda content: content["annotations"][0].update(image_id=77))),
    Case("outline is a number", ("in image 1 that is neither", "polygons", "correct it"), "coco", outline(5)),
    Case("outline without polygons", ("in image 1 that is neither", "polygons"), "coco", outline([])),
    Case("polygon of text", ("in image 1 that holds", "coordinates"), "coco", outline([["a"] * 6])),
    Case("polygon far outside", ("in image 1 that holds", "coordinates"), "coco", outline([[1e9] * 6])),
    Case("polygon of seven numbers", ("in image 1 that has an odd number",), "coco", outline([[1, 2, 3, 4, 5, 6, 7]])),
    Case("run lengths of another size", ("has the size [80, 101], not the image's [80, 100]",), "coco",
         outline({"size": [80, 101], "counts": [8080]})),
    Case("run lengths too short", ("do not fill the image",), "coco", outline({"size": [80, 100], "counts": [9, 9]})),
    Case("run lengths that cannot be decoded", ("do not fill the image",), "coco",
         outline({"size": [80, 100], "counts": "garbage!!"})),
    Case("truncated run lengths", ("do not fill the image",), "coco", outline({"size": [80, 100], "counts": "P0"})),
    Case("image without size", ("lists an image without file_name, height, id, width",), "coco",
         annotations(lambda content: content["images"][0].update(height="80"))),
    Case("listed image missing", ("000000000004.jpg is missing", "unpack"), "coco",
         without("train2017/000000000004.jpg")),
]  # fmt: skip
SBD = [
    Case("SBD label without GTcls", (".mat holds no GTcls.Segmentation", "SBD's cls/ files"), "sbd",
         in_every("cls/*.mat", save_other_matrix)),
    Case("SBD label is text", (".mat cannot be read as a MATLAB file",), "sbd",
         in_every("cls/*.mat", lambda path: path.write_text("x"))),
    Case("SBD label missing", ("s0.mat is missing", "add it"), "sbd", without("cls/s0.mat")),
    Case("missing SBD root", ("no img/ and cls/", "run python -m dataloaders.prepare pascal", "--sbd-root DIR"), "sbd",
         shutil.rmtree),
]  # fmt: skip


def bad_flags(expected: str, *flags: str) -> Case:
    """`expected`: the parts of the error, between " | "."""
    return Case(" ".join(flags), tuple(expected.split(" | ")), flags=flags)


FLAGS = [
    Case("class numbers from 1", ("no training label of", "SegmentationClass has class 0, 'ground'",
                                  "dataloaders.convert with --first-id 1", "--allow-absent 0"),
         damage=numbers_from_1),
    Case("allowed class of no name", ("--allow-absent wal: no class", "3 classes: ground, wall, sky"),
         flags=("--allow-absent", "wal")),
    bad_flags("--backbone | 'vgg' | mobilenet", "--backbone", "vgg"),
    bad_flags("--dataset | 'ade' | pascal", "--dataset", "ade"),
    bad_flags("--dataset | 'pascl' | did you mean pascal?", "--dataset", "pascl"),
    bad_flags("--backbone | 'resnet_50' | did you mean resnet50?", "--backbone", "resnet_50"),
    bad_flags("unrecognized arguments: --bacbone drn | did you mean --backbone?", "--bacbone", "drn"),
    bad_flags("--batch_size=3 | did you mean --batch-size?", "--batch_size=3"),
    bad_flags("--weights-from xception65_citys_trainfine | did you mean xception65_cityscapes_trainfine?",
              "--weights-from", "xception65_citys_trainfine"),
    bad_flags("--config /nowhere/c.json cannot be read | config.json of a run", "--config", "/nowhere/c.json"),
    bad_flags("--lr-scheduler | 'exp' | poly", "--lr-scheduler", "exp"),
    bad_flags("--lr: '-1' is not a number above 0", "--lr", "-1"),
    bad_flags("--lr: 'fast' is not a number above 0", "--lr", "fast"),
    bad_flags("--lr: 'nan' is not", "--lr", "nan"),
    bad_flags("--weight-decay: '-0.1' is not a number", "--weight-decay", "-0.1"),
    bad_flags("--momentum: '1' is not a number from 0 to below 1", "--momentum", "1"),
    bad_flags("--gpu-ids | CUDA_VISIBLE_DEVICES | torchrun", "--gpu-ids", "0,1"),
    bad_flags("--no-cuda | --device cpu", "--no-cuda"),
    bad_flags("--start_epoch | --resume", "--start_epoch", "3"),
    bad_flags("--test-batch-size | leave it out", "--test-batch-size", "4"),
    bad_flags("drn has no output stride 32 | 8, 16", "--backbone", "drn", "--out-stride", "32"),
    bad_flags("--multi-grid | resnet50 | leave it out for mobilenet", "--multi-grid"),
    bad_flags("--wide-tap | mobilenet | leave it out for drn", "--backbone", "drn", "--wide-tap"),
    bad_flags("6 training images are fewer than --batch-size 7 | lower it", "--batch-size", "7"),
    bad_flags("--batch-size 1 leaves batch norm 1 image | --freeze-bn", "--batch-size", "1"),
    bad_flags("--batch-size 3 | 1 processes x 2 micro-batches | multiple of 2",
              "--batch-size", "3", "--accumulate", "2"),
    bad_flags("--crop-size 33 33 33 | give N, or H W", "--crop-size", "33", "33", "33"),
    bad_flags("--sync-bn works on GPUs alone | leave it out", "--sync-bn"),
    bad_flags("--nesterov needs --momentum above 0", "--nesterov", "--momentum", "0"),
    bad_flags("--ft takes the weights of a checkpoint | --resume FILE", "--ft"),
    bad_flags("--weights-from resnet_secret | choose one of mobilenetv2_dm05", "--weights-from", "resnet_secret"),
    bad_flags("no file /nowhere/w.pth", "--backbone-weights", "/nowhere/w.pth"),
    bad_flags("no file /nowhere/c.pth", "--resume", "/nowhere/c.pth"),
    bad_flags("cannot write /dev/null/run | --run-dir", "--run-dir", "/dev/null/run"),
]  # fmt: skip
if not torch.cuda.is_available():
    FLAGS.append(bad_flags("--device cuda | --device auto or cpu", "--device", "cuda"))


@pytest.fixture
def roots(request):
    """A function: name of a dataset -> (flags, root folder)."""

    def find(name: str) -> tuple[list[str], Path]:
        if name == "sbd":
            voc, sbd = request.getfixturevalue("voc_root"), request.getfixturevalue("sbd_root")
            return ["--dataset", "pascal", "--data-root", str(voc), "--use-sbd", "--sbd-root", str(sbd)], sbd
        root = request.getfixturevalue({"pascal": "voc"}.get(name, name) + "_root")
        return ["--dataset", name, "--data-root", str(root)], root

    return find


def contains(line: str, parts: Sequence[str]) -> bool:
    """Whether `line` contains `parts` in their order."""
    position = 0
    for part in parts:
        position = line.find(part, position)
        if position < 0:
            return False
    return True


@pytest.mark.parametrize("case", LAYOUT + COCO + FLAGS + PAIRS + SBD, ids=lambda case: case.name)
def test_training_stops_with_one_line_and_writes_nothing(case, roots, tmp_path, capsys):
    data, root = roots(case.dataset)
    case.damage(root)
    (tmp_path / "run/folder/x/experiment_0").mkdir(parents=True)
    status, _ = in_process(data, tmp_path / "run", "--epochs", "1", *case.flags)
    lines = said(capsys.readouterr().err)
    assert status == 2
    assert len(lines) == 1 and lines[0].startswith("error: ") and contains(lines[0], case.parts), lines
    # Pixels are decoded first in training; every other mistake is found before the run starts
    written = [path for path in (tmp_path / "run").rglob("experiment_*") if any(path.iterdir())]
    assert not written or case is TRUNCATED_PIXELS
    assert not list((tmp_path / "run").rglob("checkpoint*"))


@pytest.mark.parametrize("case", LAYOUT + PAIRS + COCO + SBD, ids=lambda case: case.name)
def test_the_checker_reports_the_same_mistake(case, roots, capsys):
    data, root = roots(case.dataset)
    case.damage(root)
    assert checker.main([*data, "--split", "train", "--workers", "0"]) == 2
    out, err = capsys.readouterr()
    problems = [line.removeprefix("  problem: ") for line in out.splitlines() if line.startswith("  problem: ")]
    assert any(contains(problem, case.parts) for problem in problems), out
    assert "would stop or spoil a training run" in said(err)[-1]


MOBILENET = "--backbone mobilenet --head lite"
OTHER_COMMANDS = [  # (command, its flags, parts of the error); NETWORK, IMAGE and TMP stand for paths
    ("check", "--dataset ade", "--dataset | 'ade' | pascal"),
    ("check", "--dataset foldr", "'foldr' | did you mean folder?"),
    ("prepare", "cityscape", "'cityscape' | did you mean cityscapes?"),
    ("weights", "x --out y --backbon drn --num_classes 5", "--num_classes | did you mean --num-classes?"),
    ("evaluate", "--chekpoint x", "--checkpoint --weights-from is required | did you mean --checkpoint?"),
    ("predict", "IMAGE --checkpoint x --ouy TMP/out", "--out | did you mean --out?"),
    ("check", "--dataset demo --workers abc", "--workers: 'abc' is not"),
    ("check", "--dataset demo --split val --workers 0 --json /dev/null/x.json", "cannot write /dev/null/x.json"),
    ("prepare", "voc", "NAME | 'voc' | pascal"),
    ("prepare", "pascal --archives nowhere", "--archives nowhere: no such folder"),
    ("prepare", "pascal --root /dev/null/x --no-verify", "cannot write /dev/null/x | give another --root"),
    ("prepare", "cityscapes --root TMP/out", "needs an account | cityscapes --archives DIR"),
    ("weights", "x --out y --backbone vgg", "--backbone: invalid choice: 'vgg'"),
    ("weights", f"x --out y {MOBILENET} --num-classes 0", "--num-classes: '0' is not"),
    ("weights", f"NETWORK --out /dev/null/x.pth {MOBILENET} --width 0.25", "cannot write /dev/null/x.pth | --out"),
    ("weights", f"TMP --out y {MOBILENET}", "TMP | folder without a TensorFlow checkpoint"),
    ("cost", "--width 0", "--width: '0' is not a number above 0"),
    ("cost", "--backbone drn --out-stride 32", "drn has no output stride 32 | 8, 16"),
    ("evaluate", "", "--checkpoint --weights-from is required"),
    ("evaluate", "--weights-from resnet_secret", "--weights-from resnet_secret | choose one of mobilenetv2_dm05"),
    ("evaluate", "--checkpoint NETWORK --stride 9", "--crop-size and --stride | --protocol center-crop or slide"),
    ("evaluate", "--checkpoint NETWORK --protocol center-crop --stride 9", "--stride belongs to --protocol slide"),
    ("evaluate", "--checkpoint NETWORK --protocol center-crop --crop-size 33 65", "center crop is square | give N"),
    ("evaluate", "--checkpoint NETWORK --protocol slide --crop-size 33 --stride 40",
     "--stride 40 40 leaves gaps between windows of 33x33"),
    ("evaluate", "--checkpoint NETWORK --protocol slide --crop-size 1 2 3", "--crop-size 1 2 3: give N, or H W"),
    ("evaluate", "--checkpoint NETWORK --protocol center-crop --save-predictions x", "needs whole images"),
    ("evaluate", "--checkpoint NETWORK --backbone resnet", "--backbone resnet contradicts | mobilenet"),
    ("evaluate", "--checkpoint NETWORK --width 0.5", "--width 0.5 contradicts | 0.25"),
    ("evaluate", "--checkpoint NETWORK --num-classes 4", "does not fill the mobilenet network"),
    ("evaluate", "--checkpoint NETWORK --dataset demo", "3 classes | 8"),
    ("evaluate", "--checkpoint NETWORK --split nowhere", "nowhere.txt is missing"),
    ("evaluate", "--checkpoint NETWORK --out /dev/null/x", "cannot write | give another --out"),
    ("evaluate", "--checkpoint NETWORK --save-predictions /dev/null/x", "cannot write | give another --save-pred"),
    ("predict", "IMAGE --checkpoint NETWORK --out TMP/out --stride 3", "--crop-size and --stride | --protocol slide"),
    ("predict", "IMAGE --checkpoint NETWORK --out TMP/out --backbone resnet", "--backbone resnet contradicts"),
    ("predict", "IMAGE --checkpoint NETWORK --out /dev/null/x", "cannot write | give another --out"),
    ("predict", "nowhere.jpg --checkpoint NETWORK --out TMP/out", "nowhere.jpg"),
]  # fmt: skip
MAINS = {"check": checker.main, "prepare": prepare.main, "weights": weights_command.main, "cost": cost.main,
         "evaluate": evaluate.main, "predict": predict.main}  # fmt: skip


@pytest.mark.parametrize(("name", "flags", "expected"), OTHER_COMMANDS, ids=lambda value: value[:60])
def test_the_other_commands_stop_with_one_line(name, flags, expected, folder_network, folder_root, tmp_path, capsys):
    workers = ["--workers", "0"] if name in ("evaluate", "predict") else []
    paths = {"NETWORK": folder_network, "IMAGE": folder_root / "JPEGImages/t.0.jpg", "TMP": tmp_path}
    for key, path in paths.items():
        flags, expected = flags.replace(key, str(path)), expected.replace(key, str(path))
    try:
        status = MAINS[name]([*flags.split(), *workers])
    except SystemExit as stop:  # argparse's way
        status = stop.code
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and line.startswith("error: ") and contains(line, expected.split(" | ")), line
    assert not (tmp_path / "out").exists()


def test_parameters_in_backticks_are_printed_as_flags(capsys):
    """Library code names `batch_size`; the user of a command reads --batch-size."""

    def fail(message: str, kind: type[Exception] = UserError) -> Callable[[], int]:
        def command() -> int:
            raise kind(message)

        return command

    text = "`batch_size` 3 and `output_stride` 7 of `window` (1, 2): give `root`, or leave `no_val` out"
    assert run_command(fail(text)) == 2
    expected = "error: --batch-size 3 and --out-stride 7 of --crop-size (1, 2): give --data-root, or leave --no-val out"
    assert capsys.readouterr().err == f"{expected}\n"
    assert run_command(fail("file `my image`.jpg costs 5`")) == 2  # these are no names of parameters
    assert capsys.readouterr().err == "error: file `my image`.jpg costs 5`\n"
    assert run_command(fail("the run failed", RunFailed)) == 1
    assert capsys.readouterr().err == "error: the run failed\n"
    assert run_command(fail("", KeyboardInterrupt)) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_command(fail("", ZeroDivisionError))
    assert run_command(lambda: 0) == 0 and flag("lr") == "--lr"


def test_other_processes_name_their_rank(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")

    def command() -> int:
        raise UserError("Traceback of a worker\nutils.errors.UserError: `lr` is wrong")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "rank 3: error: --lr is wrong\n"


def test_resume_with_another_backbone_or_class_count_names_both_values(folder_root, tmp_path, capsys):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    _, folder = in_process(data, tmp_path / "run", "--max-steps", "1", "--no-val")
    path = str(folder / "checkpoint.pth.tar")
    capsys.readouterr()
    assert in_process(data, tmp_path / "run", "--resume", path, "--backbone", "resnet50")[0] == 2
    assert contains(said(capsys.readouterr().err)[-1], ("--backbone resnet50", "mobilenet", "--ft"))
    (folder_root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert in_process(data, tmp_path / "run", "--resume", path)[0] == 2
    assert contains(said(capsys.readouterr().err)[-1], ("has 3 classes", "the data 4", "--ft"))
    write_checkpoint(Path(path), read_checkpoint(path) | {"config": "backbone=resnet"})
    assert in_process(data, tmp_path / "run", "--resume", path)[0] == 2
    assert contains(said(capsys.readouterr().err)[-1], (path, "--ft"))


def convert_images(mode: str) -> Callable:
    def change(root: Path) -> None:
        for path in root.glob(IMAGES):
            image = Image.open(path).convert(mode)
            path.unlink()
            image.save(path.with_suffix(".tif"))

    return change


def one_pixel_high(root: Path) -> None:
    for path in root.glob("JPEGImages/*"):
        Image.open(path).resize((48, 1)).save(path)
    for path in root.glob("SegmentationClass/*"):
        save_label(np.asarray(Image.open(path))[5:6], path)  # the first row is ignored


def set_orientation(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in root.glob("JPEGImages/*"):
        Image.open(path).save(path, exif=exif)


def slow(*values) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("change", "flags"),
    [slow(convert_images("L"), []), slow(convert_images("RGBA"), []), slow(convert_images("CMYK"), []),
     slow(set_orientation, []), (one_pixel_high, []), slow(lambda root: None, ["--crop-size", "129"])],
    ids=["gray", "RGBA", "CMYK", "EXIF orientation", "one pixel high", "crop larger than the image"],
)  # fmt: skip
def test_unusual_images_train(change, flags, folder_root, tmp_path):
    change(folder_root)
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    assert in_process(data, tmp_path / "run", "--epochs", "1", *flags)[0] == 0
    assert checker.main([*data, "--workers", "0"]) == 0


def test_polygons_and_run_lengths_are_drawn_and_short_polygons_are_skipped(coco_root, capsys):
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
            {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
            for n, segmentation in outlines.items()
        ]

    annotations(change, "annotations/instances_val2017.json")(coco_root)
    data = build_dataset("coco", "val", root=str(coco_root))
    assert "3 polygons of fewer than 6 numbers" in capsys.readouterr().out
    drawn = [np.asarray(data.read(index)[1]) for index in range(4)]
    assert (drawn[0][12:58, 12:58] == 15).all() and not drawn[3].any()
    for label in drawn[1:3]:
        assert np.array_equal(label, mask * 15)


@pytest.mark.parametrize("call", ["count_pixels", "draw labels"])
def test_an_error_ends_the_progress_bar_before_its_line_is_printed(call, coco_root, monkeypatch, capsys):
    build = lambda: build_dataset("coco", "val", root=str(coco_root))  # noqa: E731
    data = build() if call == "count_pixels" else None
    broken = "dataloaders.coco_index.decode_runs" if data else "dataloaders.coco_index.draw_runs"
    monkeypatch.setattr(broken, lambda *_: int("no number"))
    with pytest.raises(ValueError, match="no number") as kept:  # as train.py keeps the error while it prints
        count_pixels(data, skip_broken=False) if data else build()
    print("error: the line", file=sys.stderr)
    assert kept and capsys.readouterr().err.split("\n")[-2:] == ["error: the line", ""]


def test_stderr_of_a_failing_process_is_one_line(coco_root, tmp_path):
    outline([["a"] * 6])(coco_root)
    status, _, err = end(begin(command(["--dataset", "coco", "--data-root", str(coco_root)], tmp_path / "run")))
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
