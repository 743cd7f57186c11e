"""Disks that fill up, losses that are no numbers, checkpoints that are none: said in a line, and nothing is lost."""

import json
import os
import pickle
import resource
import sys

import numpy as np
import pytest
import torch
from running import ROOT, begin, command, end, in_process, log, said, torchrun

import evaluate
import predict
import train
from benchmarks import kill_resume
from engine import Trainer
from modeling import weights
from utils.run.checkpoint import read_checkpoint, write_checkpoint
from utils.run.files import append_whole, write_atomically
from utils.run.writer import RetryingWriter

RUN = ["--epochs", "3", "--save-every", "1"]


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


@pytest.fixture
def full_disk():
    """full_disk(True): no file grows beyond 100 kB in this process; full_disk(False): as before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(is_full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if is_full else soft, hard))

    yield fill
    fill(False)


def at_steps(monkeypatch, events: dict) -> None:
    """Call `events[step]` after that step, before it is saved."""
    original = Trainer.after_step

    def after_step(self, loss, speed):
        events.get(self.step + 1, lambda _: None)(self.run)
        original(self, loss, speed)

    monkeypatch.setattr(Trainer, "after_step", after_step)


def test_a_full_disk_is_said_once_and_the_run_ends_as_if_it_had_not_been(
    data, tmp_path, monkeypatch, capsys, full_disk
):
    _, whole = in_process(data, tmp_path / "whole", *RUN)
    capsys.readouterr()
    seen = []

    def look(run) -> None:
        seen.append(read_checkpoint(run.checkpoint)["step"])
        seen.append(sorted(path.name for path in run.path.glob(".*")))

    events = {2: lambda _: full_disk(True), 6: look, 8: lambda _: full_disk(False)}
    at_steps(monkeypatch, events)
    status, folder = in_process(data, tmp_path / "run", *RUN)
    lines = [line for line in said(capsys.readouterr().err) if "written" in line or "cannot write" in line]
    assert status == 0 and seen == [1, []]  # the checkpoint of step 1 stays whole, beside no part of another
    assert len(lines) == 2 and "cannot write" in lines[0] and "next save tries again" in lines[0]
    assert str(folder) in lines[0] and "File too large" in lines[0]
    assert kill_resume.differences(kill_resume.content(whole), kill_resume.content(folder)) == []


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_with_status_1(data, tmp_path, monkeypatch, capsys, full_disk):
    at_steps(monkeypatch, {4: lambda _: full_disk(True)})
    status, folder = in_process(data, tmp_path / "run", *RUN)
    full_disk(False)
    lines = said(capsys.readouterr().err)
    assert status == 1 and lines[-1].startswith("error: ") and "could not be written" in lines[-1]
    assert "Traceback" not in "".join(lines)
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 3
    assert [row["epoch"] for row in log(folder)] == [1, 2, 3]  # small files still fitted
    monkeypatch.undo()
    assert in_process(data, tmp_path / "run", *RUN, "--resume", "auto")[0] == 0


@pytest.mark.slow
def test_a_run_folder_that_vanishes_for_a_while(data, tmp_path, monkeypatch, capsys):
    """A regular file in its place for some steps: root's rights do not matter there."""
    _, whole = in_process(data, tmp_path / "whole", *RUN)

    def lose(run) -> None:
        run.path.rename(tmp_path / "away")
        run.path.write_text("")

    def find(run) -> None:
        run.path.unlink()
        (tmp_path / "away").rename(run.path)

    at_steps(monkeypatch, {2: lose, 5: find})
    status, folder = in_process(data, tmp_path / "run", *RUN)
    assert status == 0 and "Not a directory" in capsys.readouterr().err
    assert kill_resume.differences(kill_resume.content(whole), kill_resume.content(folder)) == []


def test_an_append_that_fails_leaves_the_file_as_it_was(tmp_path, full_disk):
    path = tmp_path / "log.jsonl"
    append_whole(path, b"one\n")
    full_disk(True)
    with pytest.raises(OSError, match="too large"):
        append_whole(path, b"x" * 200_000)
    with pytest.raises(OSError, match="too large"):
        append_whole(tmp_path / "new", b"x" * 200_000)
    full_disk(False)
    assert path.read_bytes() == b"one\n" and not (tmp_path / "new").exists()


def test_what_waits_is_written_in_its_order_and_in_its_last_form(tmp_path, capsys):
    writer, folder = RetryingWriter(), tmp_path / "later"
    writer.replace(folder / "latest", b"1")
    writer.replace(folder / "best", b"1")
    writer.append(folder / "log", b"a\n")
    writer.append(folder / "log", b"b\n")
    writer.replace(folder / "latest", b"2")
    assert [path.name for path in writer.unwritten] == ["best", "latest", "log"]
    folder.mkdir()
    writer.retry()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "best": b"1",
        "latest": b"2",
        "log": b"a\nb\n",
    }
    assert writer.unwritten == [] and capsys.readouterr().err.count("cannot write") == 1


def test_atomic_writes_below_a_regular_file_fail_cleanly(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "file" / "c.pth", b"new")


def copies(model) -> dict:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def poison(monkeypatch, step: int, value: float = float("nan")) -> None:
    """Make the loss of the step after `step` steps `value`."""
    original = Trainer.backward

    def backward(self, part, pixels, *, is_last):
        sums = original(self, part, pixels, is_last=is_last)
        return sums * value if self.step == step else sums

    monkeypatch.setattr(Trainer, "backward", backward)


@pytest.mark.parametrize("value", [float("nan"), pytest.param(float("inf"), marks=pytest.mark.slow)])
def test_nothing_is_learnt_from_a_loss_that_is_no_number(data, tmp_path, monkeypatch, capsys, value):
    weights = []
    give_up = Trainer.give_up
    monkeypatch.setattr(
        Trainer, "give_up",
        lambda self, *what: weights.append(copies(self.model)) or give_up(self, *what),
    )  # fmt: skip
    poison(monkeypatch, 4, value)
    status, folder = in_process(data, tmp_path / "run", *RUN)
    line = said(capsys.readouterr().err)[-1]
    assert status == 1 and "at epoch 2, step 5, samples t." in line and "Traceback" not in line
    state = read_checkpoint(folder / "checkpoint.pth.tar")
    assert state["step"] == 4
    assert all(torch.equal(value, state["state_dict"][name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_the_samples_of_all_processes_are_named(data, tmp_path):
    flags = ["--epochs", "9", "--lr", "1e30", "--batch-size", "6", "--no-val"]
    status, _, err = end(begin(command(data, tmp_path / "run", *flags, launcher=torchrun(2))))
    (line,) = [line for line in said(err) if line.startswith("error: the loss is")]
    assert status != 0 and all(f"t.{number}" in line for number in range(6))


def test_weights_that_a_step_broke_are_not_saved(data, tmp_path, monkeypatch, capsys):
    """A finite loss whose gradient is infinite: the next save refuses, and the last good checkpoint stays."""
    at_steps(monkeypatch, {3: lambda _: None})
    update = Trainer.update

    def broken(self, *, scale):
        if self.step == 2:
            self.optimizer.param_groups[0]["params"][0].grad[0] = float("inf")
        update(self, scale=scale)

    monkeypatch.setattr(Trainer, "update", broken)
    status, folder = in_process(data, tmp_path / "run", *RUN)
    assert status == 1 and "not finite after step 3" in said(capsys.readouterr().err)[-1]
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 2


@pytest.mark.slow
def test_fp16_skips_a_step_of_infinite_gradients_but_not_a_bad_loss(data, tmp_path, monkeypatch):
    learnt, scales, update = [], [], Trainer.update

    def watched(self, *, scale):
        if self.step == 13:
            self.optimizer.param_groups[0]["params"][0].grad[0] = float("inf")
        before = copies(self.model)
        update(self, scale=scale)
        learnt.append(any(not torch.equal(value, before[name]) for name, value in copies(self.model).items()))
        scales.append(self.scaler.get_scale())

    monkeypatch.setattr(Trainer, "update", watched)
    flags = ["--epochs", "5", "--no-val", "--amp", "fp16"]
    assert in_process(data, tmp_path / "run", *flags)[0] == 0
    assert learnt[12:] == [True, False, True]  # the first steps look for a scale
    assert scales[13] == scales[12] / 2
    poison(monkeypatch, 1)
    assert in_process(data, tmp_path / "bad", *flags)[0] == 1


@pytest.mark.slow
def test_workers_that_ignore_sigterm_do_not_keep_a_failed_run_alive(data, tmp_path):
    """Python ends workers that are left over by SIGTERM and waits for them."""
    script = tmp_path / "failing.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import train\nkept = []\n"
        "def fail(self, *, scale):\n    kept.append(self)\n    raise RuntimeError('a mistake of ours')\n"
        "train.Trainer.update = fail\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    arguments = command(data, tmp_path / "run", "--epochs", "3", "--workers", "2")
    status, _, err = end(begin([sys.executable, str(script), *arguments[2:]]), seconds=60)
    assert status == 1 and "RuntimeError: a mistake of ours" in err


class RunsCode:
    def __init__(self, call, *arguments):
        self.call = (call, arguments)

    def __reduce__(self):
        return self.call


class SetsState:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir('executed')",)


def as_zip(path):
    torch.save({"state_dict": RunsCode(os.system, "touch executed"), "epoch": 1}, path)


def as_plain_pickle(path):
    path.write_bytes(pickle.dumps({"state_dict": SetsState()}, protocol=2))


def as_old_format(path):
    torch.save({"config": RunsCode(exec, "open('executed', 'w')")}, path, _use_new_zipfile_serialization=False)


def as_later_pickle(path):
    path.write_bytes(pickle.dumps({"state_dict": SetsState()}, protocol=4))


def as_torchscript(path):
    torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), path)


def as_tensor_name(path):
    torch.save({"state_dict": {"w": torch.ones(1), "x": RunsCode(os.mkdir, "executed")}}, path)


# A command, and its flags that come before the file
COMMANDS = [
    (train.main, ["--device", "cpu", "--resume"]),
    (train.main, ["--device", "cpu", "--ft", "--resume"]),
    (train.main, ["--device", "cpu", "--dataset", "demo", "--backbone-weights"]),
    (evaluate.main, ["--checkpoint"]),
    (predict.main, [__file__, "--out", "out", "--checkpoint"]),
    (weights.main, ["--backbone", "mobilenet", "--num-classes", "2", "--out", "out"]),
]


@pytest.mark.filterwarnings("error", "ignore:`torch.jit")
@pytest.mark.parametrize(
    "write", [as_zip, as_plain_pickle, as_later_pickle, as_old_format, as_torchscript, as_tensor_name]
)
@pytest.mark.parametrize(("main", "flags"), COMMANDS, ids=[" ".join(flags) for _, flags in COMMANDS])
def test_code_in_a_checkpoint_is_refused_by_every_command(write, main, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "evil.pth")
    assert main([*flags, "evil.pth"]) == 2
    (line,) = said(capsys.readouterr().err)
    assert line.startswith("error: evil.pth cannot be read as a checkpoint") and "weights_only" not in line
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["evil.pth"]


def test_one_function_alone_reads_files_of_torch():
    from test_layering import ROOT

    users = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if "torch.load(" in path.read_text()}
    assert {user for user in users if not user.startswith(("tests", ".venv"))} == {"utils/checkpoint.py"}


def truncated(path):
    path.write_bytes(path.read_bytes()[:20_000])


def emptied(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no checkpoint")


def a_list(path):
    torch.save([1, 2], path)


def weights_alone(path):
    torch.save(read_checkpoint(path)["state_dict"], path)


def of_the_known_implementation(path):
    state = {"epoch": 3, "state_dict": {}, "optimizer": {}, "best_pred": np.float64(0.5)}
    torch.save(state, path)


def of_another_network(path):
    state = read_checkpoint(path)
    state["state_dict"] = {f"module.{name}": value for name, value in state["state_dict"].items()}
    write_checkpoint(path, state)


def without_a_part(path):
    state = read_checkpoint(path)
    del state["scaler"]
    write_checkpoint(path, state)


def without_anything(path):
    torch.save({}, path)


def with_entry(name, value):
    def damage(path):
        write_checkpoint(path, read_checkpoint(path) | {name: value})

    damage.__name__ = f"with_{name}_{value!r}"
    return damage


STRANGE_ENTRIES = [
    ("classes", 5), ("classes", None), ("palette", 3), ("palette", [[0, 0]]), ("mean", "x"), ("std", [1.0]),
    ("epoch", "x"), ("step", -5), ("best_pred", "x"), ("epoch_losses", None), ("broken", [1]), ("optimizer", None),
    ("state_dict", {1: torch.ones(1)}), ("padding", "none"),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run to take copies of."""
    from conftest import write_voc

    torch.set_num_threads(1)
    root = write_voc(tmp_path_factory.mktemp("finished") / "mine", {"train": list("abcd"), "val": ["e"]}, num_classes=3)
    (root / "classes.txt").write_text("a\nb\nc\n")
    data = ["--dataset", "folder", "--data-root", str(root)]
    return data, in_process(data, root.parent / "run", "--epochs", "2")[1]


@pytest.fixture
def run(finished, tmp_path):
    import shutil

    data, folder = finished
    copy = tmp_path / "run/folder/x/experiment_0"
    shutil.copytree(folder, copy)
    return data, copy


@pytest.mark.parametrize(
    ("damage", "said_of_it"),
    [
        (truncated, "cannot be read as a checkpoint"),
        (emptied, "cannot be read as a checkpoint"),
        (text, "cannot be read as a checkpoint"),
        (a_list, "holds a list"),
        (weights_alone, "holds weights but no run to go on with: add --ft"),
        (of_the_known_implementation, "holds weights but no run to go on with: add --ft"),
        (of_another_network, "does not fit the run it says it is of"),
        (without_a_part, "does not fit the run it says it is of (KeyError: 'scaler')"),
        (without_anything, "holds weights but no run to go on with: add --ft"),
        *((with_entry(name, value), f"is damaged, its {name} is ") for name, value in STRANGE_ENTRIES),
    ],
)
def test_a_file_that_cannot_be_resumed_is_one_line(run, tmp_path, capsys, damage, said_of_it):
    data, folder = run
    checkpoint = folder / "checkpoint.pth.tar"
    damage(checkpoint)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, _ = in_process(data, tmp_path / "run", "--resume", str(checkpoint), "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and line.startswith(f"error: {checkpoint} ") and said_of_it in line
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_from_elsewhere_that_does_not_fit_leaves_no_folder(run, tmp_path, capsys):
    data, folder = run
    alone = tmp_path / "alone.pth.tar"
    (folder / "checkpoint.pth.tar").rename(alone)
    without_a_part(alone)
    status, _ = in_process(data, tmp_path / "runs", "--resume", str(alone), "--epochs", "3")
    assert status == 2 and "does not fit" in capsys.readouterr().err
    assert list(tmp_path.glob("runs/**/experiment_*")) == []


@pytest.mark.parametrize(
    ("damage", "said_of_it"),
    [(without_anything, "has no weights in it"), (with_entry("mean", "x"), "is damaged"), (a_list, "holds a list")],
)
@pytest.mark.parametrize(("main", "flags"), COMMANDS[1:], ids=[" ".join(flags) for _, flags in COMMANDS[1:]])
def test_a_file_without_weights_is_one_line_from_every_command(run, tmp_path, capsys, damage, said_of_it, main, flags):
    checkpoint = run[1] / "checkpoint.pth.tar"
    damage(checkpoint)
    assert main([*flags, str(checkpoint)]) == 2
    (line,) = said(capsys.readouterr().err)
    assert line.startswith(f"error: {checkpoint} {said_of_it}")


def test_auto_passes_over_what_is_no_file_and_finds_a_best_one_alone(run, tmp_path, capsys):
    data, folder = run
    (folder / "checkpoint.pth.tar").unlink()
    (folder / "checkpoint.pth.tar").mkdir()
    _, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "2", "--no-val")
    out = capsys.readouterr().out
    assert f"passing over no file {folder / 'checkpoint.pth.tar'} (it is a folder" in out
    assert f"resuming {folder / 'model_best.pth.tar'}" in out and later == folder


def test_auto_says_which_newest_checkpoint_it_passes_over_and_why(run, tmp_path, capsys):
    data, folder = run
    truncated(folder / "checkpoint.pth.tar")
    status, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "2")
    out = capsys.readouterr().out
    assert status == 0 and later == folder  # the best one of the same run is good to go on from
    assert f"passing over {folder / 'checkpoint.pth.tar'} cannot be read as a checkpoint" in out
    assert f"resuming {folder / 'model_best.pth.tar'}" in out
    assert read_checkpoint(folder / "checkpoint.pth.tar")["epoch"] == 2
    assert [row["epoch"] for row in log(folder)] == [1, 2]


def test_auto_starts_afresh_where_nothing_can_be_read_and_overwrites_nothing(run, tmp_path, capsys):
    data, folder = run
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        truncated(folder / name)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "1", "--no-val")
    out = capsys.readouterr().out
    assert status == 0 and later.name == "experiment_1"
    assert out.count("passing over") == 2 and "fresh start" in out
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_said_before_the_resumed_run(run, tmp_path, capsys, full_disk):
    data, folder = run
    (folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "text": "x" * 200_000}) + "\nhalf of a line")
    full_disk(True)
    status, _ = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "3")
    full_disk(False)
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and f"cannot write into {folder}" in line
    assert (folder / "log.jsonl").stat().st_size > 200_000
