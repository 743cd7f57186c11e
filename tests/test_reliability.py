"""A run that is killed, stopped, or divided among several processes ends as one that never was."""

import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from running import ROOT, Killed, begin, command, complete, end, in_process, log, patch_recorder, torchrun, wait_for
from sample_data import save_label, write_voc

import dataloaders.base
import train
from benchmarks import kill_resume
from benchmarks.kill_resume import content, differences
from benchmarks.killed_train import PLACES, counted
from utils.run.checkpoint import read_checkpoint
from utils.run.signals import StopSignals

SAVING = ["--epochs", "3", "--save-every", "2", "--ema", "0.5"]


@pytest.fixture
def data(folder_root):
    """Six training images: 3 steps an epoch."""
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def test_differences_are_found_at_every_depth():
    one = {"state_dict": {"w": torch.ones(2)}, "log": [{"loss": 1.0}], "best_pred": 0.5, "seconds": 1}
    assert differences(one, one | {"seconds": 2}) == []
    other = {"state_dict": {"w": torch.tensor([1.0, 1.0000001])}, "log": [{"loss": 1.0}, {}], "best_pred": None}
    assert sorted(differences(one, other)) == ["best_pred differs", "log differs", "state_dict/w differs"]


ALL_PLACES = [("step", 3), ("rename", 3), ("resume", 1), ("log", 4), ("validation", 1), ("step", 2)]


@pytest.mark.parametrize("places", [[("rename", 3)], pytest.param(ALL_PLACES, marks=pytest.mark.slow)])
def test_a_run_killed_at_each_place_equals_one_never_killed(places, data, tmp_path, monkeypatch):
    """One run, killed at one place after the other."""

    def die(*_arguments: object) -> None:
        raise Killed

    _, whole = in_process(data, tmp_path / "whole", *SAVING)
    for place, count in places:
        owner, name, _, counts, is_before = PLACES[place]
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, counted(getattr(owner, name), count, die, counts, is_before))
            with pytest.raises(Killed):
                in_process(data, tmp_path / "parts", *SAVING, "--resume", "auto")
        for folder in (tmp_path / "parts").rglob("experiment_*"):
            (folder / ".checkpoint.pth.tar.7.part").write_bytes(b"half of a file")
            with open(folder / "log.jsonl", "a") as file:
                file.write('{"epoch": 1, "train_l')
    status, parts = in_process(data, tmp_path / "parts", *SAVING, "--resume", "auto")
    assert status == 0
    assert differences(content(whole), content(parts)) == []


def test_a_resumed_run_reads_only_the_images_that_are_left(data, tmp_path, monkeypatch):
    read, original = [], dataloaders.base.SegmentationDataset.read_pixels
    monkeypatch.setattr(
        dataloaders.base.SegmentationDataset,
        "read_pixels",
        lambda self, index: read.append(self.ids[index]) or original(self, index),
    )
    _, unstopped = in_process(data, tmp_path / "whole", "--epochs", "2", "--no-val")
    whole = list(read)
    in_process(data, tmp_path / "parts", "--epochs", "2", "--max-steps", "2", "--no-val")
    read.clear()
    _, folder = in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")
    assert len(whole) == 2 + 12  # two for first_batch.png
    assert read == whole[2 + 4 :]
    assert [row["train_loss"] for row in log(folder)] == [row["train_loss"] for row in log(unstopped)]


@pytest.mark.slow
def test_twenty_kills_at_random_moments(capsys):
    assert kill_resume.main(["--kills", "20", "--seed", "1"]) == 0
    assert "20 kills" in (out := capsys.readouterr().out) and "0 failures" in out


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(data, tmp_path):
    folders = [
        in_process(data, tmp_path / workers, "--epochs", "2", "--workers", workers)[1] for workers in ("0", "1", "4")
    ]
    first = content(folders[0])
    for folder in folders[1:]:
        assert differences(first, content(folder)) == []


@pytest.mark.parametrize(
    ("number", "logged", "last"),
    [(signal.SIGTERM, 1, 2), *[pytest.param(*case, marks=pytest.mark.slow) for case in
                               ((signal.SIGINT, 1, 2), (signal.SIGTERM, 3, 3), (signal.SIGTERM, 6, 6))]],
)  # fmt: skip
def test_a_run_stopped_by_a_signal_is_resumed_and_equals_one_never_stopped(
    number, logged, last, data, tmp_path, monkeypatch, capsys
):
    """The signal comes when step `logged` is logged: within an epoch, before a validation, before the last one."""
    _, whole = in_process(data, tmp_path / "whole", "--epochs", "2")
    with monkeypatch.context() as patch:
        patch_recorder(patch, {logged: lambda _: signal.raise_signal(number)})
        status, folder = in_process(data, tmp_path / "parts", "--epochs", "2")
    assert status == 128 + number
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == last
    out = capsys.readouterr().out
    assert f"stopped by signal {int(number)} after step {last}; continue with --resume {folder}" in out
    # An epoch whose validation was interrupted is trained, but neither logged nor scored
    is_first_epoch = logged <= 3
    assert (folder / "log.jsonl").exists() != is_first_epoch
    assert (folder / "model_best.pth.tar").exists() != is_first_epoch
    assert in_process(data, tmp_path / "parts", "--resume", "auto")[0] == 0
    assert differences(content(whole), content(folder)) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_a_signal_before_the_first_step(data, tmp_path, monkeypatch, number, status):
    build_network = train.build_network

    def build_after_signal(*arguments):
        signal.raise_signal(number)
        return build_network(*arguments)

    monkeypatch.setattr(train, "build_network", build_after_signal)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    assert in_process(data, tmp_path / "run", "--max-steps", "1", "--no-val")[0] == status
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_second_interrupt_ends_a_run_with_status_130_and_the_last_checkpoint_stays(data, tmp_path, monkeypatch):
    def interrupt_twice(_folder) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)

    patch_recorder(monkeypatch, {3: interrupt_twice})
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3", "--save-every", "1", "--no-val")
    assert status == 130 and read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 2


def test_a_second_interrupt_ends_at_once_whatever_signal_came_between():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.decode(signals.pop_flags()).stop == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_two_interrupts_within_a_second_are_one_under_torchrun(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals.decode(signals.pop_flags()).stop == signal.SIGINT
        signals.first_interrupt -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# Long enough for a signal to arrive in its middle
LONG = ["--epochs", "400", "--save-every", "1", "--no-val", "--workers", "2"]


def checkpoint(runs):
    return next(runs.rglob("checkpoint.pth.tar"), None)


def check_resumed(data, runs, stopped_at: int) -> None:
    """Two steps after the stop, the resumed run is where an unstopped one is."""
    last = str(stopped_at + 2)
    in_process(data, runs, "--resume", "auto", "--max-steps", last, "--no-val")
    _, whole = in_process(data, runs.parent / "whole", "--epochs", "400", "--max-steps", last, "--no-val")
    one, two = read_checkpoint(checkpoint(runs)), read_checkpoint(whole / "checkpoint.pth.tar")
    assert one["step"] == two["step"] == stopped_at + 2
    for part in ("state_dict", "optimizer", "epoch_losses"):
        assert differences(one[part], two[part]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_process_group_stops_with_a_checkpoint(data, tmp_path, number, status):
    process = begin(command(data, tmp_path / "run", *LONG))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    os.killpg(process.pid, number)
    got, out, err = end(process)
    assert got == status and "Traceback" not in err
    step = read_checkpoint(checkpoint(tmp_path / "run"))["step"]
    assert f"stopped by signal {int(number)} after step {step}" in out
    check_resumed(data, tmp_path / "run", step)


@pytest.mark.slow
def test_a_second_interrupt_to_the_process_group_ends_at_once(data, tmp_path):
    process = begin(command(data, tmp_path / "run", *LONG))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.002)  # two signals that wait at once would be one
    got, _, err = end(process, seconds=20)
    assert got == 130 and "Traceback" not in err
    check_resumed(data, tmp_path / "run", read_checkpoint(checkpoint(tmp_path / "run"))["step"])


@pytest.mark.slow
def test_sigusr1_to_the_process_group_saves_and_the_run_continues(data, tmp_path):
    flags = ["--epochs", "400", "--no-val", "--workers", "2", "--max-steps", "90"]
    process = begin(command(data, tmp_path / "run", *flags))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    os.killpg(process.pid, signal.SIGUSR1)
    status, out, err = end(process)
    assert status == 0, err
    assert out.count("asked for by SIGUSR1: checkpoint of step") == 1
    assert read_checkpoint(checkpoint(tmp_path / "run"))["step"] == 90


@pytest.mark.slow
def test_torchrun_forwards_a_stop_and_the_run_is_resumed(data, tmp_path):
    process = begin(command(data, tmp_path / "run", *LONG, "--batch-size", "4", launcher=torchrun(2)))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    os.killpg(process.pid, signal.SIGINT)  # reaches torchrun alone: its workers have sessions of their own
    status, out, _ = end(process)
    step = read_checkpoint(checkpoint(tmp_path / "run"))["step"]
    assert status != 0 and f"stopped by signal 2 after step {step}" in out
    flags = ["--batch-size", "4", "--epochs", "400", "--no-val", "--max-steps", str(step + 2), "--resume", "auto"]
    for runs in ("run", "whole"):
        complete(command(data, tmp_path / runs, *flags, launcher=torchrun(2)))
    one, two = (read_checkpoint(checkpoint(tmp_path / runs)) for runs in ("run", "whole"))
    assert one["step"] == step + 2 and differences(one["state_dict"], two["state_dict"]) == []


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc to find torchrun's workers")
def test_torchrun_restarts_a_killed_rank_and_the_run_equals_one_never_killed(data, tmp_path):
    flags = ["--epochs", "20", "--batch-size", "4", "--save-every", "3", "--resume", "auto", "--workers", "1"]
    launcher = torchrun(2, "--max-restarts=3")
    process = begin(command(data, tmp_path / "run", *flags, launcher=launcher))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    status, out, err = end(process, seconds=240)
    assert status == 0, err
    assert "resuming " in out
    complete(command(data, tmp_path / "whole", *flags, launcher=launcher))
    folders = [checkpoint(tmp_path / runs).parent for runs in ("run", "whole")]
    assert differences(content(folders[0]), content(folders[1])) == []


@pytest.mark.slow
def test_evaluate_gives_the_same_file_in_one_two_and_three_processes(voc_root, tmp_path):
    """Three images: two processes do not get the same number."""
    data = ["--dataset", "pascal", "--data-root", str(voc_root), "--max-steps", "1"]
    complete(command(data, tmp_path / "run", "--no-val"))
    scores = []
    for processes in (1, 2, 3):
        out = tmp_path / f"scores{processes}"
        launcher = torchrun(processes) if processes > 1 else []
        flags = ["--checkpoint", str(checkpoint(tmp_path / "run")), "--out", str(out), "--device", "cpu",
                 "--workers", "0"]  # fmt: skip
        complete([sys.executable, *launcher, str(ROOT / "evaluate.py"), *flags])
        scores.append((out / "metrics.json").read_bytes())
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.slow
def test_unevenly_labeled_micro_batches_and_ranks_make_the_step_of_the_whole_batch(tmp_path):
    """Class weights, two processes of two micro-batches, and images with no, few, or only labeled pixels."""
    ids = [f"t{number}" for number in range(8)]
    root = write_voc(tmp_path / "mine", {"train": ids, "val": ["v0"]}, num_classes=3)
    (root / "classes.txt").write_text("a\nb\nc\n")
    for number, key in enumerate(ids[:5]):
        label = np.full((36, 48), 255, np.uint8)
        label[: 2 * number] = number % 3
        save_label(label, root / f"SegmentationClass/{key}.png")
    data = ["--dataset", "folder", "--data-root", str(root)]
    flags = ["--batch-size", "8", "--epochs", "6", "--freeze-bn", "--dropout", "0", "--use-balanced-weights",
             "--lr", "0.0001"]  # fmt: skip
    complete(command(data, tmp_path / "one", *flags))
    complete(command(data, tmp_path / "four", *flags, "--accumulate", "2", launcher=torchrun(2)))
    one, four = (checkpoint(tmp_path / runs).parent for runs in ("one", "four"))
    for row, other in zip(log(one), log(four), strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_over_twenty_steps(shared, tmp_path):
    """Real images and weights. An epoch is one step here, so that the log holds the loss of each step."""
    voc, root = shared / "data/voc/VOC2012", tmp_path / "VOC2012"
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(voc / name)
    ids = (voc / "ImageSets/Segmentation/train.txt").read_text().split()[:4]
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids))
    data = ["--dataset", "pascal", "--data-root", str(root)]
    weights = str(shared / "weights/mobilenet_v2_keras.pth")
    flags = ["--backbone-weights", weights, "--head", "separable", "--batch-size", "4", "--epochs", "20", "--no-val",
             "--crop-size", "129", "--freeze-bn", "--dropout", "0", "--lr", "0.001"]  # fmt: skip
    complete(command(data, tmp_path / "one", *flags))
    out = complete(command(data, tmp_path / "two", *flags, launcher=torchrun(2)))
    assert "local batch norm" in out
    one, two = (log(checkpoint(tmp_path / runs).parent) for runs in ("one", "two"))
    assert len(one) == 20
    for row, other in zip(one, two, strict=True):
        assert other["train_loss"] == pytest.approx(row["train_loss"], rel=1e-5)
