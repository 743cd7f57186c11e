"""Two processes over gloo see what one process sees, and score what one process scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.run.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[1]


def torchrun(script: str, *flags: str, processes: int) -> subprocess.CompletedProcess:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / script), *map(str, flags)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def flags(root, runs) -> list[str]:
    return ["--dataset", "folder", "--data-root", root, "--run-dir", runs, "--checkname", "x",
            "--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33",
            "--batch-size", "4", "--workers", "0",
            "--device", "cpu", "--lr", "0.01"]  # fmt: skip


def test_two_processes_train_and_score_like_one(tmp_path, folder_root):
    rows, states = [], []
    for processes in (1, 2):
        runs = tmp_path / f"run{processes}"
        extra = ["--freeze-bn", "--dropout", "0", "--epochs", "4", "--use-balanced-weights"]
        done = torchrun("train.py", *flags(folder_root, runs), *extra, processes=processes)
        assert done.returncode == 0, done.stderr
        (folder,) = (runs / "folder/x").iterdir()  # the first process alone writes
        rows.append([json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()])
        states.append(read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"])
    assert "local batch norm" in done.stdout and done.stdout.count("run folder") == 1
    for one, two in zip(*rows, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_validation_counts_each_picture_once(tmp_path, folder_root):
    """Two images over three processes: uneven shards, the identical counts, nothing hangs."""
    done = torchrun("train.py", *flags(folder_root, tmp_path / "run"), "--max-steps", "1", processes=1)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = (tmp_path / "run").rglob("checkpoint.pth.tar")
    metrics = []
    for processes in (1, 3):
        out = tmp_path / f"out{processes}"
        arguments = ["--checkpoint", checkpoint, "--out", out, "--workers", "0", "--device", "cpu"]
        further = ["--trimap", "2", "--boundary", "--save-predictions", out / "saved"]
        done = torchrun("evaluate.py", *arguments, *further, processes=processes)
        assert done.returncode == 0, done.stderr
        rows = (out / "per_image.csv").read_text(), (out / "confusion.csv").read_text()
        metrics.append((json.loads((out / "metrics.json").read_text()), *rows, len(list((out / "saved").iterdir()))))
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_user_errors_are_one_line_there_too(tmp_path, folder_root):
    done = torchrun("train.py", *flags(folder_root, tmp_path / "run"), "--sync-bn", processes=2)
    assert done.returncode != 0
    assert "error: --sync-bn works on GPUs alone" in done.stderr
    assert not (tmp_path / "run").exists()


RESTARTED = """
import os, signal, sys, time, torch
sys.path.insert(0, sys.argv[1])
from utils.distributed import all_reduce, process_group
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if attempt == 1 and rank == 1:
    time.sleep(3)  # long enough for the others to read what the dead rank 1 left in torchrun's store
with process_group(torch.device("cpu")):
    total = int(all_reduce(torch.ones(1)))
    if attempt == 0 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt == 0:
        time.sleep(60)
    with open(f"{sys.argv[2]}/{rank}", "w") as file:
        file.write(f"attempt {attempt} sum {total}")
"""


@pytest.mark.slow
def test_restarted_ranks_find_each_other_not_the_dead(tmp_path):
    (tmp_path / "restarted.py").write_text(RESTARTED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "--max-restarts=1"]
    (tmp_path / "said").mkdir()
    command = [*launcher, str(tmp_path / "restarted.py"), str(ROOT), str(tmp_path / "said")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    said = {path.name: path.read_text() for path in (tmp_path / "said").iterdir()}
    assert said == {str(rank): "attempt 1 sum 3" for rank in range(3)}
