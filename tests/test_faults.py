"""Full disks, losses that are not finite, and files that are no checkpoint: one line each, and nothing is lost."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from running import ROOT, begin, command, end, error_line, in_process, log, patch_recorder, said, torchrun
from sample_data import write_voc

import evaluate
import predict
import train
from benchmarks.kill_resume import content, differences
from modeling import weights
from utils.losses import CrossEntropy
from utils.run.checkpoint import read_checkpoint, write_checkpoint
from utils.run.files import append_whole, write_atomically
from utils.run.writer import RetryingWriter

resource = pytest.importorskip("resource", reason="a full disk is simulated by POSIX's limit on the size of files")
RUN = ["--epochs", "3", "--save-every", "1"]


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


@pytest.fixture
def full_disk():
    """full_disk(True): this process cannot make a file larger than 100 kB; full_disk(False): it can again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(is_full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000 if is_full else soft, hard))

    yield fill
    fill(False)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_is_reported_once_and_changes_nothing(
    data, tmp_path, monkeypatch, capsys, full_disk
):
    _, whole = in_process(data, tmp_path / "whole", *RUN)
    capsys.readouterr()
    during = {}

    def look(run) -> None:
        during["step"] = read_checkpoint(run.checkpoint)["step"]
        during["partial files"] = sorted(path.name for path in run.path.glob(".*"))

    patch_recorder(monkeypatch, {2: lambda _: full_disk(True), 6: look, 8: lambda _: full_disk(False)})
    status, folder = in_process(data, tmp_path / "run", *RUN)
    lines = [line for line in said(capsys.readouterr().err) if "written" in line or "cannot write" in line]
    assert status == 0 and during == {"step": 1, "partial files": []}
    assert len(lines) == 2 and "cannot write" in lines[0] and str(folder) in lines[0] and "File too large" in lines[0]
    assert differences(content(whole), content(folder)) == []


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_with_status_1(data, tmp_path, monkeypatch, capsys, full_disk):
    patch_recorder(monkeypatch, {4: lambda _: full_disk(True)})
    status, folder = in_process(data, tmp_path / "run", *RUN)
    full_disk(False)
    line = error_line(capsys.readouterr().err)
    assert status == 1 and line.startswith("error: ") and "could not be written" in line
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 3
    assert [row["epoch"] for row in log(folder)] == [1, 2, 3]  # the log is small enough
    monkeypatch.undo()
    assert in_process(data, tmp_path / "run", *RUN, "--resume", "auto")[0] == 0


@pytest.mark.slow
def test_a_run_folder_that_is_away_for_a_while_changes_nothing(data, tmp_path, monkeypatch, capsys):
    """A file in its place: rights would not stop root."""
    _, whole = in_process(data, tmp_path / "whole", *RUN)

    def lose(run) -> None:
        run.path.rename(tmp_path / "away")
        run.path.write_text("")

    def find(run) -> None:
        run.path.unlink()
        (tmp_path / "away").rename(run.path)

    patch_recorder(monkeypatch, {2: lose, 5: find})
    status, folder = in_process(data, tmp_path / "run", *RUN)
    assert status == 0 and "Not a directory" in capsys.readouterr().err
    assert differences(content(whole), content(folder)) == []


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, full_disk):
    path = tmp_path / "log.jsonl"
    append_whole(path, b"one\n")
    full_disk(True)
    with pytest.raises(OSError, match="too large"):
        append_whole(path, b"x" * 200_000)
    with pytest.raises(OSError, match="too large"):
        append_whole(tmp_path / "new", b"x" * 200_000)
    full_disk(False)
    assert path.read_bytes() == b"one\n" and not (tmp_path / "new").exists()


def test_files_that_wait_are_written_in_the_order_and_form_of_their_last_change(tmp_path, capsys):
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


def test_an_atomic_write_below_a_file_raises_its_own_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "file" / "c.pth", b"new")


class NanAt(CrossEntropy):
    """The cross-entropy, but NaN at its call number `step`."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def forward(self, logits, label):
        self.step -= 1
        total, weight = super().forward(logits, label)
        return total * (float("nan") if self.step == 0 else 1), weight


def test_a_loss_that_is_not_finite_ends_the_run_with_status_1_and_the_last_checkpoint_stays(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(train, "build_loss", lambda *_, **__: NanAt(5))
    status, folder = in_process(data, tmp_path / "run", *RUN)
    line = error_line(capsys.readouterr().err)
    assert status == 1 and "the loss is nan at epoch 2, step 5, samples t." in line
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 4


@pytest.mark.slow
def test_the_samples_of_all_processes_are_named(data, tmp_path):
    flags = ["--epochs", "9", "--lr", "1e30", "--batch-size", "6", "--no-val"]
    status, _, err = end(begin(command(data, tmp_path / "run", *flags, launcher=torchrun(2))))
    (line,) = [line for line in said(err) if line.startswith("error: the loss is")]
    assert status != 0 and all(f"t.{number}" in line for number in range(6))


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


# (command, its flags before the file)
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


def test_one_module_alone_reads_files_of_torch():
    files = [path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith((".", "tests"))]
    assert [path for path in files if "torch.load(" in path.read_text()] == [ROOT / "utils/run/checkpoint.py"]


def truncated(path):
    path.write_bytes(path.read_bytes()[:20_000])


def empty_file(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no checkpoint")


def a_list(path):
    torch.save([1, 2], path)


def weights_alone(path):
    torch.save(read_checkpoint(path)["state_dict"], path)


def of_jfzhang95(path):
    state = {"epoch": 3, "state_dict": {}, "optimizer": {}, "best_pred": np.float64(0.5)}
    torch.save(state, path)


def of_another_network(path):
    state = read_checkpoint(path)
    state["state_dict"] = {f"module.{name}": value for name, value in state["state_dict"].items()}
    write_checkpoint(path, state)


def without_scaler(path):
    state = read_checkpoint(path)
    del state["scaler"]
    write_checkpoint(path, state)


def empty_dict(path):
    torch.save({}, path)


def with_entry(name, value):
    def damage(path):
        write_checkpoint(path, read_checkpoint(path) | {name: value})

    damage.__name__ = f"with_{name}_{value!r}"
    return damage


WRONG_ENTRIES = [
    ("classes", 5), ("classes", None), ("palette", 3), ("palette", [[0, 0]]), ("mean", "x"), ("std", [1.0]),
    ("epoch", "x"), ("step", -5), ("best_pred", "x"), ("epoch_losses", None), ("broken", [1]), ("optimizer", None),
    ("state_dict", {1: torch.ones(1)}), ("padding", "none"),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(flags of the data, folder) of a finished run, of which tests take copies."""
    torch.set_num_threads(1)
    root = write_voc(tmp_path_factory.mktemp("finished") / "mine", {"train": list("abcd"), "val": ["e"]}, num_classes=3)
    (root / "classes.txt").write_text("a\nb\nc\n")
    data = ["--dataset", "folder", "--data-root", str(root)]
    return data, in_process(data, root.parent / "run", "--epochs", "2")[1]


@pytest.fixture
def run(finished, tmp_path):
    data, folder = finished
    copy = tmp_path / "run/folder/x/experiment_0"
    shutil.copytree(folder, copy)
    return data, copy


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (truncated, "cannot be read as a checkpoint"),
        (empty_file, "cannot be read as a checkpoint"),
        (text, "cannot be read as a checkpoint"),
        (a_list, "holds a list"),
        (weights_alone, "holds weights but no run to resume: add --ft"),
        (of_jfzhang95, "holds weights but no run to resume: add --ft"),
        (of_another_network, "does not fit the run that its settings describe"),
        (without_scaler, "does not fit the run that its settings describe (KeyError: 'scaler')"),
        (empty_dict, "holds weights but no run to resume: add --ft"),
        *((with_entry(name, value), f"is damaged, its {name} is ") for name, value in WRONG_ENTRIES),
    ],
)
def test_resuming_from_a_file_that_is_no_checkpoint_is_an_error_of_one_line(run, tmp_path, capsys, damage, expected):
    data, folder = run
    checkpoint = folder / "checkpoint.pth.tar"
    damage(checkpoint)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, _ = in_process(data, tmp_path / "run", "--resume", str(checkpoint), "--epochs", "3")
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and line.startswith(f"error: {checkpoint} ") and expected in line
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_checkpoint_that_does_not_fit_leaves_no_new_run_folder(run, tmp_path, capsys):
    data, folder = run
    alone = tmp_path / "alone.pth.tar"
    (folder / "checkpoint.pth.tar").rename(alone)
    without_scaler(alone)
    status, _ = in_process(data, tmp_path / "runs", "--resume", str(alone), "--epochs", "3")
    assert status == 2 and "does not fit" in capsys.readouterr().err
    assert list(tmp_path.glob("runs/**/experiment_*")) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(empty_dict, "has no weights in it"), (with_entry("mean", "x"), "is damaged"), (a_list, "holds a list")],
)
@pytest.mark.parametrize(("main", "flags"), COMMANDS[1:], ids=[" ".join(flags) for _, flags in COMMANDS[1:]])
def test_a_file_without_weights_is_an_error_in_every_command(run, tmp_path, capsys, damage, expected, main, flags):
    checkpoint = run[1] / "checkpoint.pth.tar"
    damage(checkpoint)
    assert main([*flags, str(checkpoint)]) == 2
    (line,) = said(capsys.readouterr().err)
    assert line.startswith(f"error: {checkpoint} {expected}")


def test_auto_skips_a_folder_and_resumes_the_best_checkpoint(run, tmp_path, capsys):
    data, folder = run
    (folder / "checkpoint.pth.tar").unlink()
    (folder / "checkpoint.pth.tar").mkdir()
    _, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "2", "--no-val")
    out = capsys.readouterr().out
    assert f"skipped: no file {folder / 'checkpoint.pth.tar'} (it is a folder" in out
    assert f"resuming {folder / 'model_best.pth.tar'}" in out and later == folder


def test_auto_prints_which_checkpoint_it_skips_and_why(run, tmp_path, capsys):
    data, folder = run
    truncated(folder / "checkpoint.pth.tar")
    status, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "3")
    out = capsys.readouterr().out
    assert status == 0 and later == folder
    assert f"skipped: {folder / 'checkpoint.pth.tar'} cannot be read as a checkpoint" in out
    assert f"resuming {folder / 'model_best.pth.tar'}" in out
    assert read_checkpoint(folder / "checkpoint.pth.tar")["epoch"] == 3
    assert [row["epoch"] for row in log(folder)] == [1, 2, 3]


def test_auto_starts_a_new_run_if_no_checkpoint_can_be_read_and_overwrites_nothing(run, tmp_path, capsys):
    data, folder = run
    for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
        truncated(folder / name)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, later = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "1", "--no-val")
    out = capsys.readouterr().out
    assert status == 0 and later.name == "experiment_1"
    assert out.count("skipped: ") == 2 and "fresh start" in out
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_folder_that_cannot_be_written_is_an_error_before_the_first_step(run, tmp_path, capsys, full_disk):
    data, folder = run
    (folder / "log.jsonl").write_text(json.dumps({"epoch": 1, "text": "x" * 200_000}) + "\nhalf of a line")
    full_disk(True)
    status, _ = in_process(data, tmp_path / "run", "--resume", "auto", "--epochs", "3")
    full_disk(False)
    (line,) = said(capsys.readouterr().err)
    assert status == 2 and f"cannot write {folder} (File too large): make room there" in line
    assert (folder / "log.jsonl").stat().st_size > 200_000
