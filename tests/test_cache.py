"""--cache: the same bits as without, from several processes, after kills, changed files and power failures."""

import os
import pickle
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import Killed, begin, command, complete, descendants, in_process, patch_recorder, torchrun, wait_for
from sample_data import save_label

from benchmarks.kill_resume import content, differences
from dataloaders import SegmentationDataset, build_dataset
from dataloaders.cache import CachedDataset, folder_store, memory_store, open_cache
from dataloaders.cache.folder_store import FolderStore
from dataloaders.cache.keys import sample_key
from dataloaders.cache.memory_store import MemoryStore
from dataloaders.sbd import SBD
from utils.errors import BrokenImage, UserError


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


@pytest.fixture(params=["folder", "ram"])
def place(request, tmp_path):
    return "ram" if request.param == "ram" else str(tmp_path / "samples")


def open_one(place: str, dataset: SegmentationDataset) -> CachedDataset:
    return open_cache(place, [dataset])[0]


def folder_of(root: Path) -> SegmentationDataset:
    return build_dataset("folder", "train", root=str(root))


def pixels(dataset, index: int) -> tuple[list, list]:
    return tuple(np.asarray(part).tolist() for part in dataset.read_pixels(index))


def no_read(monkeypatch) -> None:
    """From here on a sample that is decoded fails the test."""
    monkeypatch.setattr(SegmentationDataset, "read_pixels", lambda self, index: pytest.fail(f"{index} is decoded"))


def turn(path: Path) -> None:
    """Let a camera have held the image upside down on its side, which changes its size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


KINDS = {
    "pascal": {}, "cityscapes": {}, "coco": {}, "ade20k": {}, "context": {"context_background": True}, "folder": {},
    "pascal and sbd": {"use_sbd": True},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_dataset_is_decoded_once_and_stays_the_same(kind, place, request, monkeypatch):
    name, options = kind.split()[0], dict(KINDS[kind])
    root = str(request.getfixturevalue(f"{'voc' if name == 'pascal' else name}_root"))
    if "use_sbd" in options:
        options["sbd_root"] = str(request.getfixturevalue("sbd_root"))
    dataset = build_dataset(name, "train", root=root, **options)
    if name in ("pascal", "coco", "ade20k", "context"):
        turn(dataset.image_path(0))
    indices = range(len(dataset))
    expected = [pixels(dataset, index) for index in indices]
    cached = open_one(place, dataset)
    assert cached.ids == dataset.ids and len(cached) == len(dataset)
    assert [pixels(cached, index) for index in indices] == expected
    no_read(monkeypatch)
    assert [pixels(cached, index) for index in indices] == expected


def test_images_without_files_are_drawn_once(place, monkeypatch):
    dataset = build_dataset("demo", "train")
    cached = open_one(place, dataset)
    expected = [pixels(cached, index) for index in (3, 4)]
    assert expected == [pixels(dataset, index) for index in (3, 4)]
    no_read(monkeypatch)
    assert [pixels(cached, index) for index in (3, 4)] == expected


def test_sbd_label_files_are_part_of_the_key(sbd_root, voc_root, place):
    """Of two datasets over the same images, each gets its own labels."""
    voc, sbd = build_dataset("pascal", "train", root=str(voc_root)), SBD(sbd_root)
    assert voc.ids[0] == sbd.ids[0]
    (sbd_root / "img" / "t0.jpg").unlink()
    (sbd_root / "img" / "t0.jpg").symlink_to(voc.image_path(0))
    cached = open_cache(place, [voc, sbd])
    for _ in range(2):
        assert [pixels(dataset, 0) for dataset in cached] == [pixels(voc, 0), pixels(sbd, 0)]


@pytest.mark.parametrize("change", ["image", "label", "time", "classes"])
def test_a_changed_sample_is_decoded_again(change, folder_root, place):
    dataset = folder_of(folder_root)
    cached, image, label = open_one(place, dataset), dataset.image_path(2), dataset.label_path(2)
    label.write_bytes(label.read_bytes().ljust(5000, b"\0"))
    before = pixels(cached, 2)
    if change == "image":
        Image.new("RGB", (48, 36), "red").save(image)
    elif change == "label":
        save_label(np.full((36, 48), 1, np.uint8), label)
    elif change == "time":  # other bytes, as many
        save_label(np.asarray(Image.open(label))[::-1], label)
        label.write_bytes(label.read_bytes().ljust(5000, b"\0"))
        os.utime(label, ns=(0, label.stat().st_mtime_ns + 1))
    else:
        (folder_root / "classes.txt").write_text("ground\nwall\n")
        dataset = folder_of(folder_root)
        cached = CachedDataset(dataset, cached.store)
        with pytest.raises(UserError, match="outside the 2 classes"):
            cached.read_pixels(2)
        return
    after = pixels(cached, 2)
    assert after == pixels(dataset, 2) != before
    assert pixels(cached, 2) == after


def test_a_broken_image_stays_an_error(folder_root, place):
    dataset = folder_of(folder_root)
    dataset.image_path(1).write_bytes(b"no image")
    cached = open_one(place, dataset)
    for _ in range(2):
        with pytest.raises(BrokenImage):
            cached.read_pixels(1)


def test_memory_that_was_sent_to_another_process_is_the_same(folder_root, monkeypatch):
    cached = open_one("ram", folder_of(folder_root))
    before = pixels(cached, 0)
    sent = pickle.loads(pickle.dumps(cached))
    no_read(monkeypatch)
    assert sent.store.file != cached.store.file and pixels(sent, 0) == before


@pytest.mark.parametrize("damage", ["hole", "short", "empty"])
def test_a_file_that_a_power_failure_damaged_is_not_used(damage, folder_root, tmp_path, monkeypatch):
    dataset = folder_of(folder_root)
    cached = open_one(str(tmp_path), dataset)
    expected = [pixels(cached, index) for index in (0, 1)]
    damaged, whole = (cached.store.path(sample_key(dataset, index)) for index in (0, 1))
    saved = damaged.read_bytes()
    damaged.write_bytes({"hole": saved[:2000] + bytes(500) + saved[2500:], "short": saved[:-8], "empty": b""}[damage])
    monkeypatch.setattr(folder_store, "BOOT", b"another start...")
    assert [pixels(cached, index) for index in (0, 1)] == expected
    assert whole.read_bytes() != saved and damaged.read_bytes()[:72].count(b"another start...") == 1
    monkeypatch.setattr(folder_store, "checksum", lambda _: pytest.fail("checked twice"))
    no_read(monkeypatch)
    assert [pixels(cached, index) for index in (0, 1)] == expected


def fill_for_ever(cached: CachedDataset, seed: int) -> None:
    """Add samples in random order, some as if their files had been other ones."""
    order = random.Random(seed)
    while True:
        index = order.randrange(len(cached))
        key, (image, label) = sample_key(cached.dataset, index), cached.dataset.read(index)
        stale = key._replace(version=bytes(16)) if order.random() < 0.3 else key
        cached.store.add(stale, np.asarray(image), np.asarray(label))


def test_processes_that_fill_at_once_and_are_killed_leave_nothing_wrong(folder_root, place):
    dataset = folder_of(folder_root)
    expected = [pixels(dataset, index) for index in range(len(dataset))]
    cached = open_one(place, dataset)
    for attempt in range(3):
        children = []
        for seed in (1, 2):
            child = os.fork()
            if not child:
                try:
                    fill_for_ever(cached, 10 * attempt + seed)
                finally:
                    os._exit(1)
            children.append(child)
        last = time.monotonic() + 0.02 + 0.01 * attempt
        while time.monotonic() < last:
            assert [pixels(cached, index) for index in range(len(cached))] == expected
        for child in children:
            os.kill(child, signal.SIGKILL)
            assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [pixels(cached, index) for index in range(len(cached))] == expected


@pytest.mark.parametrize("num_writes", [0, 1])
def test_memory_whose_writer_was_killed_is_no_entry(num_writes, folder_root, monkeypatch):
    dataset, calls = folder_of(folder_root), []

    def die(*arguments) -> None:
        if len(calls) == num_writes:
            raise Killed
        calls.append(write_at(*arguments))

    cached, write_at = open_one("ram", dataset), memory_store.write_at
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(memory_store, "write_at", die)
        cached.read_pixels(0)
    for _ in range(2):
        assert pixels(cached, 0) == pixels(dataset, 0)


def test_what_killed_processes_left_is_removed_an_hour_later(folder_root, tmp_path):
    parts = FolderStore.create(tmp_path).parts
    for name, age in (("old", 7200), ("new", 60)):
        (parts / name).write_bytes(b"half")
        os.utime(parts / name, (0, time.time() - age))
    FolderStore.create(tmp_path)
    assert [path.name for path in parts.iterdir()] == ["new"]


def test_too_little_space_is_an_error_with_the_numbers(data, place, tmp_path, monkeypatch, capsys):
    store = MemoryStore if place == "ram" else FolderStore
    needed = 8 * 2 * 4096  # 36x48 pixels of 4 bytes, in pages
    monkeypatch.setattr(store, "free_bytes", lambda _: store.reserved_bytes + needed - 1)
    assert in_process(data, tmp_path, "--cache", place)[0] == 2
    line = capsys.readouterr().err
    assert "error: --cache: folder needs about 66 kB; " in line and "give another folder, or off" in line
    monkeypatch.setattr(store, "free_bytes", lambda _: store.reserved_bytes + needed)
    open_cache(place, [build_dataset("folder", split, root=data[3]) for split in ("train", "val")])


@pytest.mark.parametrize("path", ["a file", "a file/below"])
def test_a_place_that_is_no_folder_is_an_error(path, data, tmp_path, capsys):
    (tmp_path / "a file").write_text("")
    assert in_process(data, tmp_path, "--cache", str(tmp_path / path))[0] == 2
    assert f"cannot write {tmp_path / path}" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_a_cache_equals_one_without(data, tmp_path, monkeypatch, capsys):
    """Filled by the first run, which is resumed with another place; the second run decodes nothing."""
    how = ["--epochs", "2", "--class-uniform", "0.5", "--color-jitter", "0.2"]
    cache = ["--cache", str(tmp_path / "samples")]
    _, plain = in_process(data, tmp_path / "plain", *how)
    with monkeypatch.context() as patch:
        patch_recorder(patch, {1: lambda _: signal.raise_signal(signal.SIGTERM)})
        in_process(data, tmp_path / "filling", *how, "--cache", "ram")
    assert "cache: folder needs about 66 kB; this machine's memory has " in capsys.readouterr().out
    _, filling = in_process(data, tmp_path / "filling", *how, "--resume", "auto", "--workers", "2", *cache)
    assert f"cache: folder needs about 66 kB; {tmp_path / 'samples'} has " in capsys.readouterr().out
    with monkeypatch.context() as patch:
        no_read(patch)
        assert in_process(data, tmp_path / "filled", *how, *cache)[0] == 0
    assert "66 kB, of which 66 kB are there; " in capsys.readouterr().out
    for folder in (filling, next((tmp_path / "filled").rglob("experiment_0"))):
        assert differences(content(plain), content(folder)) == []


def test_a_place_that_becomes_full_is_said_once_and_changes_nothing(folder_root, place, monkeypatch, capsys):
    dataset = folder_of(folder_root)
    cached = open_one(place, dataset)
    monkeypatch.setattr(type(cached.store), "free_bytes", lambda store: store.reserved_bytes - 1)
    for _ in range(2):
        assert [pixels(cached, index) for index in (0, 1)] == [pixels(dataset, index) for index in (0, 1)]
    assert capsys.readouterr().out.count("takes no more samples (") == 1
    assert not [path for path in (folder_root.parent / "samples").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_workers_and_processes_share_memory_that_is_gone_with_them(data, tmp_path):
    """Also when a run is killed. Two processes with a worker each equal those without a cache."""
    place = ["--cache", "ram"]
    killed = begin(command(data, tmp_path / "killed", "--epochs", "500", "--workers", "2", "--no-val", *place))
    wait_for(lambda: list((tmp_path / "killed").rglob("checkpoint.pth.tar")), killed)
    processes = [killed.pid, *descendants(killed.pid)]
    assert len(holders(processes)) == 3
    killed.kill()
    killed.communicate()
    last = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in processes) and time.monotonic() < last:
        time.sleep(0.1)
    assert not holders(processes)
    how = ["--epochs", "2", "--batch-size", "4", "--workers", "1"]
    plain, cached = (
        complete(command(data, tmp_path / name, *how, *flags, launcher=torchrun(2)))
        and next((tmp_path / name).rglob("experiment_0"))
        for name, flags in (("plain", []), ("cached", place))
    )
    assert differences(content(plain), content(cached)) == []


def holders(processes: list[int]) -> set[int]:
    """Those of the processes that hold memory of a cache."""
    found = set()
    for pid in processes:
        for file in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                found |= {pid} if "memfd:deeplab-cache" in os.readlink(file) else set()
            except OSError:  # it has ended, or closed that file
                continue
    return found
