"""A run that is killed, stopped or dealt to several processes ends as one that never was."""

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd

import numpy as np
import pytest
import torch
from running import ROOT, Killed, begin, command, complete, end, in_process, log, torchrun, wait_for
from sample_data import save_label, write_voc

import dataloaders.base
from benchmarks import kill_resume
from benchmarks.killed_train import PLACES
from engine import Trainer
from utils.run.checkpoint import read_checkpoint
from utils.run.signals import StopSignals
from utils.run.worker_signals import hide_connection_errors, ignore_signals_in_worker

SAVING = ["--epochs", "3", "--save-every", "2", "--ema", "0.5"]


@pytest.fixture
def data(folder_root):
    """Six training images: 3 steps an epoch."""
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def content(folder) -> dict:
    return kill_resume.content(folder)


def test_differences_are_found_wherever_they_are():
    one = {"state_dict": {"w": torch.ones(2)}, "log": [{"loss": 1.0}], "best_pred": 0.5, "seconds": 1}
    assert kill_resume.differences(one, one | {"seconds": 2}) == []
    other = {"state_dict": {"w": torch.tensor([1.0, 1.0000001])}, "log": [{"loss": 1.0}, {}], "best_pred": None}
    found = kill_resume.differences(one, other)
    assert sorted(found) == ["best_pred differs", "log differs", "state_dict/w differs"]


ALL_PLACES = [("step", 3), ("rename", 3), ("resume", 1), ("log", 4), ("validation", 1), ("step", 2)]


@pytest.mark.parametrize("places", [[("rename", 3)], pytest.param(ALL_PLACES, marks=pytest.mark.slow)])
def test_deaths_leave_no_trace(places, data, tmp_path, monkeypatch):
    """A process death at each place, one after the other, in one run."""
    _, whole = in_process(data, tmp_path / "whole", *SAVING)
    for place, count in places:
        owner, name, _, counts, is_before = PLACES[place]
        with monkeypatch.context() as patch:
            function, passed = getattr(owner, name), []

            def dying(*arguments, function=function, counts=counts, count=count, before=is_before, passed=passed):
                passed.append(counts(*arguments))
                if before and sum(passed) == count:
                    raise Killed
                function(*arguments)
                if sum(passed) == count:
                    raise Killed

            patch.setattr(owner, name, dying)
            with pytest.raises(Killed):
                in_process(data, tmp_path / "parts", *SAVING, "--resume", "auto")
        for folder in (tmp_path / "parts").rglob("experiment_*"):
            (folder / ".checkpoint.pth.tar.7.part").write_bytes(b"half of a file")
            with open(folder / "log.jsonl", "a") as file:
                file.write('{"epoch": 1, "train_l')
    status, parts = in_process(data, tmp_path / "parts", *SAVING, "--resume", "auto")
    assert status == 0
    assert kill_resume.differences(content(whole), content(parts)) == []


def test_a_resumed_run_reads_only_the_pictures_that_are_left(data, tmp_path, monkeypatch):
    read, original = [], dataloaders.base.SegmentationDataset.read
    monkeypatch.setattr(
        dataloaders.base.SegmentationDataset,
        "read",
        lambda self, index: read.append(self.ids[index]) or original(self, index),
    )
    _, unstopped = in_process(data, tmp_path / "whole", "--epochs", "2", "--no-val")
    whole, read[:] = list(read), []
    in_process(data, tmp_path / "parts", "--epochs", "2", "--max-steps", "2", "--no-val")
    read.clear()
    steps, step = [], Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self, parts: steps.append(self.step) or step(self, parts))
    _, folder = in_process(data, tmp_path / "parts", "--resume", "auto", "--no-val")
    assert steps == [2, 3, 4, 5] and read == whole[4:]
    assert [row["train_loss"] for row in log(folder)] == [row["train_loss"] for row in log(unstopped)]


@pytest.mark.slow
def test_twenty_kills_at_random_moments(capsys):
    assert kill_resume.main(["--kills", "20", "--seed", "1"]) == 0
    assert "20 kills" in (out := capsys.readouterr().out) and "0 failures" in out


@pytest.mark.slow
def test_workers_do_not_matter(data, tmp_path):
    folders = [
        in_process(data, tmp_path / workers, "--epochs", "2", "--workers", workers)[1] for workers in ("0", "1", "4")
    ]
    first = content(folders[0])
    for folder in folders[1:]:
        assert kill_resume.differences(first, content(folder)) == []


# Long enough that a signal meets it, on data that validates for a while
LONG = ["--epochs", "400", "--save-every", "1", "--no-val", "--workers", "2"]


def checkpoint(runs):
    return next(runs.rglob("checkpoint.pth.tar"), None)


def same_end(data, runs, stopped_at: int) -> None:
    """Two steps on from the stop it is where an unstopped run is."""
    last = str(stopped_at + 2)
    in_process(data, runs, "--resume", "auto", "--max-steps", last, "--no-val")
    _, whole = in_process(data, runs.parent / "whole", "--epochs", "400", "--max-steps", last, "--no-val")
    one, two = read_checkpoint(checkpoint(runs)), read_checkpoint(whole / "checkpoint.pth.tar")
    assert one["step"] == two["step"] == stopped_at + 2
    for part in ("state_dict", "optimizer", "epoch_losses"):
        assert kill_resume.differences(one[part], two[part]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_whole_group_stops_with_a_checkpoint(data, tmp_path, number, status):
    process = begin(command(data, tmp_path / "run", *LONG))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    os.killpg(process.pid, number)
    got, out, err = end(process)
    assert got == status and "Traceback" not in err
    step = read_checkpoint(checkpoint(tmp_path / "run"))["step"]
    assert f"stopped by signal {int(number)} after step {step}" in out
    same_end(data, tmp_path / "run", step)


@pytest.mark.slow
def test_a_second_interrupt_leaves_at_once_and_the_checkpoint_stays(data, tmp_path):
    process = begin(command(data, tmp_path / "run", *LONG))
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.002)  # two signals that wait at once would be one
    got, _, err = end(process, seconds=20)
    assert got == 130 and "Traceback" not in err
    same_end(data, tmp_path / "run", read_checkpoint(checkpoint(tmp_path / "run"))["step"])


def offer_a_file(connection) -> None:
    """A data worker's part in handing a tensor over: its parent fetches the open file from a thread of the worker."""
    ignore_signals_in_worker()
    with open(os.devnull) as file:
        connection.send(DupFd(file.fileno()))
    connection.recv()


def test_a_parent_that_leaves_in_the_middle_of_a_batch_is_no_error_of_its_worker(capfd):
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=offer_a_file, args=(there,), daemon=True)
    worker.start()
    offer = here.recv()
    Client(offer._id[0], authkey=multiprocessing.current_process().authkey).close()
    os.close(offer.detach())  # the same thread, still at work
    here.send("end")
    worker.join()
    assert capfd.readouterr().err == ""
    hide_connection_errors(KeyError, KeyError("x"), None)
    assert "KeyError" in capfd.readouterr().err


def test_a_second_interrupt_does_not_wait_for_the_step(data, tmp_path, monkeypatch):
    step = Trainer.train_step

    def train_step(self, parts):
        for _ in range(2 if self.step == 2 else 0):
            signal.raise_signal(signal.SIGINT)
        return step(self, parts)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    status, folder = in_process(data, tmp_path / "run", "--epochs", "3", "--save-every", "1", "--no-val")
    assert status == 130 and read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 2


def test_a_second_interrupt_counts_whatever_came_between():
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.read(signals.take()).stop == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_a_signal_before_the_first_step(data, tmp_path, monkeypatch, number, status):
    build_network = build.network

    def network(*arguments):
        signal.raise_signal(number)
        return build_network(*arguments)

    monkeypatch.setattr(build, "network", network)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    assert in_process(data, tmp_path / "run", "--max-steps", "1", "--no-val")[0] == status
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_doubled_interrupt_under_torchrun_is_one(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert signals.read(signals.take()).stop == signal.SIGINT
        signals.first_interrupt -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_sigusr1_to_the_whole_group_saves_and_goes_on(data, tmp_path):
    process = begin(
        command(data, tmp_path / "run", "--epochs", "400", "--no-val", "--workers", "2", "--max-steps", "90")
    )
    wait_for(lambda: (tmp_path / "run").rglob("events*"), process)
    wait_for(lambda: checkpoint(tmp_path / "run"), process)
    first = checkpoint(tmp_path / "run").stat().st_mtime_ns
    os.killpg(process.pid, signal.SIGUSR1)
    got, out, err = end(process)
    assert got == 0, err
    assert "asked for by SIGUSR1: checkpoint of step" in out
    state = read_checkpoint(checkpoint(tmp_path / "run"))
    assert state["step"] == 90 and checkpoint(tmp_path / "run").stat().st_mtime_ns > first


def test_a_signal_in_validation_is_honoured_and_it_is_made_again(data, tmp_path, monkeypatch):
    import utils.scoring.loop

    _, whole = in_process(data, tmp_path / "whole", "--epochs", "2")
    with monkeypatch.context() as patch:
        update = utils.scoring.ConfusionMatrix.update
        patch.setattr(
            utils.scoring.ConfusionMatrix, "update",
            lambda self, *pair: (signal.raise_signal(signal.SIGTERM), update(self, *pair)),
        )  # fmt: skip
        status, parts = in_process(data, tmp_path / "parts", "--epochs", "2")
    state = read_checkpoint(parts / "checkpoint.pth.tar")
    assert status == 143 and not (parts / "log.jsonl").exists() and not (parts / "model_best.pth.tar").exists()
    assert state["step"] == 3 and state["epoch"] == 0  # trained, not yet counted
    assert in_process(data, tmp_path / "parts", "--resume", "auto")[0] == 0
    assert kill_resume.differences(content(whole), content(parts)) == []


@pytest.mark.slow
def test_a_signal_at_the_last_step_still_leaves_the_score_to_come(data, tmp_path, monkeypatch):
    _, whole = in_process(data, tmp_path / "whole", "--epochs", "2", "--max-steps", "4")
    with monkeypatch.context() as patch:
        original = Trainer.backward

        def backward(self, *arguments, **named):
            if self.step == 3:
                signal.raise_signal(signal.SIGTERM)
            return original(self, *arguments, **named)

        patch.setattr(Trainer, "backward", backward)
        status, parts = in_process(data, tmp_path / "parts", "--epochs", "2", "--max-steps", "4")
        assert status == 143 and len(log(parts)) == 1
    assert in_process(data, tmp_path / "parts", "--resume", "auto", "--max-steps", "4")[0] == 0
    assert kill_resume.differences(content(whole), content(parts)) == []


def test_sigusr1_writes_between_two_saves(data, tmp_path, monkeypatch):
    saved, save, step = [], Trainer.save, Trainer.train_step
    monkeypatch.setattr(Trainer, "save", lambda self, path: saved.append(self.step) or save(self, path))

    def train_step(self, parts):
        if self.step == 1:
            signal.raise_signal(signal.SIGUSR1)
        return step(self, parts)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    assert in_process(data, tmp_path / "run", "--epochs", "1", "--no-val")[0] == 0
    assert saved == [2, 3]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@pytest.mark.slow
def test_torchrun_passes_a_stop_on_and_the_run_goes_on_from_it(data, tmp_path):
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
    assert kill_resume.differences(one["state_dict"], two["state_dict"]) == []


def children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux's /proc to find torchrun's workers")
def test_a_killed_rank_is_restarted_and_the_end_is_the_same(data, tmp_path):
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
    assert kill_resume.differences(content(folders[0]), content(folders[1])) == []


@pytest.mark.slow
def test_validation_counts_the_same_pixels_over_two_and_three_processes(voc_root, tmp_path):
    """Three images: uneven over two processes; and their number is what one process counts."""
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
def test_unevenly_labeled_parts_and_ranks_make_the_step_of_the_whole(tmp_path):
    """Class weights, two parts, two processes, and images of which nothing, little or all is labeled."""
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
def test_two_processes_see_the_losses_of_one_over_twenty_steps(shared, tmp_path):
    """Real images and weights; an epoch is a step here, so that the log holds each step's loss."""
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
