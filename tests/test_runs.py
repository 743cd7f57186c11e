"""Checkpoint files, run folders, TensorBoard events, and the cache."""

import json
import os
import re
import time

import numpy as np
import pytest
import torch
from tensorboardX.proto.event_pb2 import Event

from benchmarks.kill_resume import scalars
from utils.cache import cached
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint, write_atomically, write_checkpoint
from utils.run.folder import RunFolder, newest_checkpoint
from utils.run.recorder import Recorder
from utils.run.tensorboard import TensorBoardLogger, read_records, truncate_events
from utils.run.writer import RetryingWriter


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    content = {"state_dict": {"w": torch.arange(3.0)}, "best_pred": 0.5, "config": {"crop_size": [1, 2], "ft": None}}
    write_checkpoint(tmp_path / "c.pth", content)
    back = read_checkpoint(tmp_path / "c.pth")
    assert torch.equal(back["state_dict"]["w"], content["state_dict"]["w"])
    assert back["config"] == content["config"] and back["best_pred"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_numpy_scalars_of_jfzhang95_are_read(tmp_path):
    torch.save({"best_pred": np.float64(0.5), "epoch": 3}, tmp_path / "old.pth")
    assert float(read_checkpoint(tmp_path / "old.pth")["best_pred"]) == 0.5


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.pth"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["c.pth"]


def test_a_file_is_written_even_if_its_folder_cannot_be_opened(tmp_path, monkeypatch):
    """As on Windows: the folder is opened only to fsync it."""

    def open_no_folder(path, flags):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", open_no_folder)
    write_atomically(tmp_path / "c.pth", b"new")
    assert (tmp_path / "c.pth").read_bytes() == b"new"


def test_run_folders_are_numbered_beyond_ten(tmp_path):
    numbers = [int(RunFolder.create(tmp_path).path.name.split("_")[1]) for _ in range(13)]
    assert numbers == list(range(13))
    (tmp_path / "experiment_4").rmdir()
    assert RunFolder.create(tmp_path).path.name == "experiment_13"


def test_a_run_folder_that_cannot_be_made_is_an_error_that_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/runs .*`run_dir`"):
        RunFolder.create(tmp_path / "file" / "runs")


def test_the_newest_checkpoint_is_the_one_written_last(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    runs = [RunFolder.create(tmp_path) for _ in range(3)]
    now = time.time()
    for run, age in zip(runs[:2], (0, 50), strict=True):
        run.checkpoint.write_bytes(b"")
        os.utime(run.checkpoint, (now - age, now - age))
    assert newest_checkpoint(tmp_path) == runs[0].checkpoint


def test_the_log_is_truncated_to_complete_lines_of_finished_epochs(tmp_path):
    run = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        run.append_log({"epoch": epoch})
    run.writer.wait()
    with open(run.log, "a") as file:
        file.write('{"epoch": 4, "tr')
    (tmp_path / ".checkpoint.pth.tar.123.part").write_bytes(b"half")
    run.truncate_to(2)
    assert [json.loads(line)["epoch"] for line in run.log.read_text().splitlines()] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_events_are_truncated_to_the_step(tmp_path):
    board = TensorBoardLogger(tmp_path, RetryingWriter())
    for step in range(1, 7):
        board.scalars({"loss": float(step), "nothing": None}, step)
    (path,) = tmp_path.glob("events*")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])  # killed while the last record was written
    truncate_events(tmp_path, 3, 3)
    records = read_records(path.read_bytes())
    events = [Event.FromString(record[12:-4]) for record in records]
    assert [event.step for event in events if event.summary.value] == [1, 2, 3]
    assert whole.startswith(path.read_bytes())


def test_a_resumed_recorder_truncates_its_files_to_the_checkpoint(tmp_path):
    def recorder(color: int = 0) -> Recorder:
        return Recorder(RunFolder(tmp_path), classes=("a", "b"), palette=[(color, 0, 0)] * 2, extra={})

    first, values = recorder(), {"loss": 1.0, "lr": 0.1, "images_per_second": 5.0}
    first.open(0, 0, 0)
    for step in range(1, 21):
        first.log_step(step, **values)
    first.add_broken(["x.jpg"])
    first.save(lambda: {"step": 10})
    first.add_broken(["x.jpg", "y.jpg"])
    first.wait()
    resumed = recorder(7)
    resumed.restore(read_checkpoint(tmp_path / "checkpoint.pth.tar"))
    resumed.open(0, 10, 0)
    resumed.wait()
    assert json.loads((tmp_path / "broken.json").read_text()) == {"files": 1, "times": {"x.jpg": 1}}
    assert resumed.palette == [(0, 0, 0)] * 2
    resumed.save(lambda: {"step": 20})
    resumed.wait()
    assert read_checkpoint(tmp_path / "checkpoint.pth.tar")["palette"] == [[0, 0, 0]] * 2
    steps = {step for step, _, _ in scalars(tmp_path)}
    resumed.log_step(20, **values)
    resumed.wait()
    assert steps == {10} and {step for step, _, _ in scalars(tmp_path)} == {10, 20}


def test_a_cache_that_cannot_be_written_is_reported_and_not_used(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "file" / "cache"))
    assert cached("name-digest", lambda: (1,)) == [1]
    assert re.match(r"note: cannot write .*file/cache .*set DEEPLAB_CACHE", capsys.readouterr().out)


def test_cached_values_are_computed_once():
    calls = []
    for _ in range(2):
        assert cached("name-digest", lambda: calls.append(1) or [1, 2]) == [1, 2]
    assert len(calls) == 1
