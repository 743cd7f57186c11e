"""Checkpoints that a thread writes: what they hold, in which order they appear, their SHA-256, and --keep."""

import gc
import hashlib
import json
import os
import struct
import threading
import zipfile

import pytest
import safetensors.torch
import torch
from running import error_line, in_process

from benchmarks.kill_resume import differences
from utils.errors import UserError
from utils.run import files, kept
from utils.run.background import BackgroundWriter
from utils.run.checkpoint import read_checkpoint, write_checkpoint
from utils.run.digests import KEY
from utils.run.folder import RunFolder, newest_checkpoints
from utils.run.recorder import Recorder
from utils.run.snapshot import HostBuffers
from utils.run.weights_file import to_safetensors


class Gate:
    """A writing of files that waits until it is opened; `begun` is set when a file reaches it."""

    def __init__(self, monkeypatch):
        self.opened, self.begun, self.names, fsync = threading.Event(), threading.Event(), [], os.fsync

        def wait(descriptor: int) -> None:
            self.begun.set()
            assert self.opened.wait(30)
            fsync(descriptor)

        replace = os.replace
        monkeypatch.setattr(files.os, "fsync", wait)
        monkeypatch.setattr(files.os, "replace", lambda a, b: (self.names.append(os.path.basename(b)), replace(a, b)))


@pytest.fixture
def gate(monkeypatch):
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


@pytest.fixture
def recorder(tmp_path):
    return Recorder(RunFolder(tmp_path), classes=("a",), palette=[(0, 0, 0)], extra={"config": {"backbone": "x"}})


def state_of(weights: torch.Tensor, step: int = 1) -> dict:
    return {"state_dict": {"w": weights, "n": torch.tensor(step)}, "step": step}


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(recorder, gate):
    weights = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    recorder.save(lambda: state_of(weights, 1))
    assert gate.begun.wait(30)
    weights += 1
    recorder.save(lambda: state_of(weights, 2))
    weights += 1
    recorder.save(lambda: state_of(weights, 3))  # takes the place of step 2
    weights += 1
    assert not recorder.folder.checkpoint.exists()
    gate.opened.set()
    recorder.wait()
    read = read_checkpoint(recorder.folder.checkpoint)
    assert read["step"] == 3 and torch.equal(read["state_dict"]["w"], weights - 1)
    assert gate.names == ["checkpoint.pth.tar"] * 2 and len(recorder.buffers.sets) == 2


def test_the_best_checkpoint_is_complete_before_the_latest_and_no_newer_one_takes_its_place(recorder, gate):
    recorder.save(lambda: state_of(torch.zeros(2), 1))
    assert gate.begun.wait(30)
    recorder.save(lambda: state_of(torch.ones(2), 2), is_best=True)
    threading.Timer(0.1, gate.opened.set).start()
    recorder.save(lambda: state_of(torch.ones(2), 3))
    recorder.wait()
    assert gate.names[:3] == ["checkpoint.pth.tar", "model_best.safetensors", "model_best.pth.tar"]
    assert read_checkpoint(recorder.folder.best)["step"] == 2
    assert read_checkpoint(recorder.folder.checkpoint)["step"] == 3


@pytest.mark.parametrize(("error", "last"), [(KeyboardInterrupt(), 1), (RuntimeError(), 2)])
def test_an_error_writes_what_was_saved_and_a_second_interrupt_only_the_file_in_progress(recorder, gate, error, last):
    recorder.save(lambda: state_of(torch.zeros(2), 1))
    assert gate.begun.wait(30)
    recorder.save(lambda: state_of(torch.zeros(2), 2))
    threading.Timer(0.1, gate.opened.set).start()
    recorder.abort(error)
    assert read_checkpoint(recorder.folder.checkpoint)["step"] == last and recorder.folder.writer.thread is None


def test_buffers_are_used_again_once_nobody_holds_the_snapshot():
    buffers, weights = HostBuffers(), torch.ones(3, 2).t()
    first = buffers.copy({"a": [weights, {"b": (1, weights)}], "c": torch.zeros(())})
    places = [first.content["a"][0].data_ptr(), first.content["c"].data_ptr()]
    second = buffers.copy({"a": [weights * 2]})
    assert first.content["a"][1]["b"][0] == 1 and torch.equal(first.content["a"][1]["b"][1], weights)
    assert second.content["a"][0].data_ptr() not in places
    del first
    gc.collect()
    third = buffers.copy({"a": [weights * 3, {"b": (1, weights)}], "c": torch.ones(())})
    assert [third.content["a"][0].data_ptr(), third.content["c"].data_ptr()] == places
    assert torch.equal(third.content["a"][0], weights * 3) and torch.equal(second.content["a"][0], weights * 2)


def test_an_error_of_the_thread_reaches_whoever_writes_or_waits(tmp_path):
    writer = BackgroundWriter()
    writer.write(tmp_path / "a", lambda: {}["no OSError"])
    for call in (writer.wait, lambda: writer.append(tmp_path / "b", b""), writer.retry):
        with pytest.raises(KeyError, match="no OSError"):
            call()
    writer.settle()


def test_a_thread_that_cannot_write_keeps_what_it_has_and_the_run_fails_at_its_end(tmp_path, capsys):
    recorder = Recorder(RunFolder(tmp_path / "later"), classes=("a",), palette=[(0, 0, 0)], extra={})
    for step in (1, 2):
        recorder.save(lambda step=step: state_of(torch.full((3,), float(step)), step), is_best=step == 1)
    with pytest.raises(RuntimeError, match=r"could not be written \(3 files"):
        recorder.close(2)
    (tmp_path / "later").mkdir()
    recorder.close(2)
    steps = [read_checkpoint(path)["step"] for path in (recorder.folder.best, recorder.folder.checkpoint)]
    assert steps == [1, 2] and capsys.readouterr().err.count("cannot write") == 1


def saved(path):
    """Tensors in several forms, one of them in the middle of the file."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.BatchNorm2d(40)).to(
        memory_format=torch.channels_last
    )
    extra = {"half": torch.rand(7).to(torch.bfloat16), "turned": torch.rand(4, 5).t(), "part": torch.rand(9)[::2]}
    state = {"state_dict": network.state_dict() | extra, "optimizer": {"state": {0: {"m": torch.rand(2)}}}, "step": 5}
    write_checkpoint(path, state)
    return state


def test_a_checkpoint_holds_the_sha256_of_the_bytes_of_each_tensor(tmp_path):
    path = tmp_path / "c.pth"
    state = saved(path)
    raw = torch.load(path, weights_only=True)
    with zipfile.ZipFile(path) as archive:
        stored = {hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist() if "/data/" in name}
    assert set(raw[KEY]) == {*(f"state_dict/{name}" for name in state["state_dict"]), "optimizer/state/0/m"}
    assert raw[KEY]["state_dict/0.weight"] in stored and raw[KEY]["optimizer/state/0/m"] in stored
    read = read_checkpoint(path)
    assert KEY not in read and differences(state, read) == []
    assert read["state_dict"]["0.weight"].is_contiguous(memory_format=torch.channels_last)


def flip(path, tensor: torch.Tensor) -> None:
    """Flip one bit of the tensor's bytes in the file."""
    data, size = bytearray(path.read_bytes()), tensor.nbytes
    flat = torch.as_strided(tensor, (tensor.numel(),), (1,)) if size > 1000 else tensor.flatten()
    place = bytes(data).index(flat.view(torch.uint8).numpy().tobytes())
    data[place + size // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_damaged_tensor_is_named(ending, tmp_path):
    path = tmp_path / f"c.{ending}"
    state = saved(path) if ending == "pth" else {"state_dict": {"a": torch.rand(4, 4), "0.weight": torch.rand(9)}}
    write_checkpoint(path, state)
    flip(path, state["state_dict"]["0.weight"])
    name = "state_dict/0.weight" if ending == "pth" else "0.weight"
    with pytest.raises(UserError, match=f"c.{ending} is damaged, the tensor {name} differs from its SHA-256: give"):
        read_checkpoint(path)


def test_damage_to_plain_values_and_lost_or_foreign_digests_are_found(tmp_path):
    path = tmp_path / "c.pth"
    write_checkpoint(path, {"state_dict": {"w": torch.ones(3)}, "note": "plain text"})
    path.write_bytes(path.read_bytes().replace(b"plain text", b"plain tent"))
    with pytest.raises(UserError, match="is damaged, its plain values differ from their CRC"):
        read_checkpoint(path)
    for stored in (5, {}, {"state_dict/v": ""}):
        torch.save({"state_dict": {"w": torch.ones(3)}, KEY: stored}, path)
        with pytest.raises(UserError, match=r"do not match at (sha256|state_dict/[vw]): give another checkpoint"):
            read_checkpoint(path)


def test_safetensors_are_written_as_the_library_of_the_format_writes_them():
    state = {
        "b": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "a": torch.rand(3),
        "n": torch.tensor(4),
    }
    state |= {"half": torch.rand(5).half(), "on": torch.tensor([True, False]), "empty": torch.zeros(0, 2)}
    data = to_safetensors({"state_dict": state, "config": {}})
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    contiguous = {name: value.contiguous() for name, value in state.items()}
    theirs = safetensors.torch.save(contiguous)
    their_size = struct.unpack_from("<Q", theirs)[0]
    assert size % 8 == 0 and data[8 + size :] == theirs[8 + their_size :]
    assert header == json.loads(theirs[8 : 8 + their_size])
    expected = {
        name: hashlib.sha256(value.view(-1).numpy().tobytes()).hexdigest() for name, value in contiguous.items()
    }
    assert json.loads(metadata[KEY]) == expected


@pytest.mark.parametrize("has_links", [True, False])
def test_the_last_checkpoints_are_kept_by_step(has_links, tmp_path, monkeypatch, recorder):
    def refuse(*_names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(kept.os, "link", refuse)
    recorder.num_kept = 2
    for step in (1, 2, 3, 3, 12):
        recorder.save(lambda step=step: state_of(torch.full((3,), float(step)), step))
    recorder.wait()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint.pth.tar", "checkpoint_step_000003.pth.tar", "checkpoint_step_000012.pth.tar"}
    assert [read_checkpoint(path)["step"] for path in kept.kept_checkpoints(tmp_path).values()] == [3, 12]
    assert (recorder.folder.checkpoint.stat().st_nlink == 2) is has_links
    recorder.save(lambda: state_of(torch.zeros(3), 4))  # of a run that was resumed at step 3
    recorder.wait()
    assert list(kept.kept_checkpoints(tmp_path)) == [3, 4]


def test_a_kept_checkpoint_is_removed_only_when_the_newer_one_is_complete(tmp_path, recorder, monkeypatch, capsys):
    recorder.num_kept = 1
    recorder.save(lambda: state_of(torch.zeros(3), 1))
    recorder.wait()
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        recorder.save(lambda: state_of(torch.zeros(3), 2))
        recorder.wait()
        assert list(kept.kept_checkpoints(tmp_path)) == [1]
    recorder.close(2)
    assert list(kept.kept_checkpoints(tmp_path)) == [2] and "can be written again" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_keeps_its_last_checkpoints_over_resumes_and_starts_from_any(folder_root, tmp_path, capsys):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    flags = ["--epochs", "2", "--save-every", "1", "--keep", "3", "--no-val"]  # 3 steps an epoch
    _, whole = in_process(data, tmp_path / "whole", *flags)
    in_process(data, tmp_path / "parts", *flags, "--max-steps", "4")
    _, parts = in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")
    for folder in (whole, parts):
        assert list(kept.kept_checkpoints(folder)) == [4, 5, 6]
    latest, *older = [path.name for path in newest_checkpoints(parts.parent)]
    assert latest == "checkpoint.pth.tar"
    assert older == [f"checkpoint_step_{step:06d}.pth.tar" for step in (6, 5, 4)]
    state = read_checkpoint(parts / latest)["state_dict"]
    flip(parts / latest, max(state.values(), key=torch.Tensor.numel))  # also that of step 6: one file
    assert in_process(data, tmp_path / "parts", "--resume", str(parts), "--no-val")[0] == 2
    assert "differs from its SHA-256" in error_line(capsys.readouterr().err)
    assert in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")[0] == 0
    out = capsys.readouterr().out
    assert out.count("skipped: ") == 2 and f"resuming {parts / older[1]}" in out
    assert differences(read_checkpoint(whole / latest), read_checkpoint(parts / latest)) == []
