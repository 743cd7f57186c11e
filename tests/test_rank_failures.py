"""A process that fails ends all processes of its run within a minute, and its error is the one that is seen."""

import re
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, begin, command, end, torchrun

DRIVER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import engine, train
from dataloaders import TrainDataset
from utils.errors import UserError

place, rank, flags = sys.argv[2], sys.argv[3], sys.argv[4:]
calls = []

def break_at(owner, name, error, first=1):
    whole = getattr(owner, name)
    def breaking(*arguments, **named):
        calls.append(name)
        if len(calls) >= first:
            print(f"fails at {time.time()}", flush=True)
            raise error("broken on purpose")
        return whole(*arguments, **named)
    setattr(owner, name, breaking)

def hang(*_, **__):
    while True:
        time.sleep(1)

if os.environ["RANK"] == rank:
    if place == "set-up":
        break_at(train, "build_network", UserError)
    elif place == "worker":
        break_at(TrainDataset, "__getitem__", UserError, first=3)
    elif place in ("step", "hang"):
        break_at(engine.Trainer, "backward", RuntimeError, first=2 if place == "step" else 1)
    elif place == "validation":
        break_at(engine, "score", RuntimeError)
elif place == "hang":
    engine.Trainer.train_step = hang

if __name__ == "__main__":
    sys.exit(train.main(flags))
"""


def run_driver(tmp_path: Path, root: Path, place: str, rank: int, processes: int, **environment: str) -> tuple:
    """(seconds from the error of `rank` at `place` to the end of all, exit status, stderr) of a training run."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    data = ["--dataset", "folder", "--data-root", str(root), "--batch-size", str(2 * processes)]
    workers = "1" if place == "worker" else "0"
    _, _, *flags = command(data, tmp_path / "run", "--epochs", "3", "--workers", workers, "--head-lr-factor", "1")
    arguments = [sys.executable, *torchrun(processes), str(driver), str(ROOT), place, str(rank), *flags]
    status, out, err = end(begin(arguments, environment))
    return time.time() - float(re.search(r"fails at (\S+)", out)[1]), status, err


def root_cause(err: str) -> tuple[int, int]:
    """(rank, exit status) in torchrun's report."""
    report = err[err.index("Root Cause") :]
    return tuple(int(re.search(rf"{name}\s*: (\d+)", report)[1]) for name in ("rank", "exitcode"))


def is_running(driver: Path) -> bool:
    paths = Path("/proc").glob("[0-9]*/cmdline")
    commands = []
    for path in paths:
        try:
            commands.append(path.read_bytes())
        except OSError:  # it has just ended
            continue
    return any(str(driver).encode() in each for each in commands)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rank"), [(2, 1), (3, 0)])
@pytest.mark.parametrize(
    ("place", "line", "status"),
    [
        ("set-up", "error: broken on purpose", 2),
        ("worker", "error: broken on purpose", 2),
        ("step", "RuntimeError: broken on purpose", 1),
        ("validation", "RuntimeError: broken on purpose", 1),
    ],
)
def test_an_error_of_one_rank_ends_all(folder_root, tmp_path, place, line, status, processes, rank):
    seconds, of_torchrun, err = run_driver(tmp_path, folder_root, place, rank, processes)
    assert seconds < 60 and of_torchrun != 0
    lines = [each for each in err.splitlines() if each.endswith("broken on purpose")]
    assert lines == [f"rank {rank}: {line}" if rank and status == 2 else line]
    assert root_cause(err) == (rank, status)
    assert "connection to another process is lost" not in err
    assert not is_running(tmp_path / "driver.py")


@pytest.mark.slow
def test_a_rank_that_hangs_does_not_outlive_one_that_fails(folder_root, tmp_path):
    """As in an NCCL kernel: it does not return, and SIGTERM only asks it to stop after the step."""
    seconds, _, err = run_driver(tmp_path, folder_root, "hang", 0, 2, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="5")
    assert seconds < 60 and err.count("RuntimeError: broken on purpose") == 1 and root_cause(err) == (0, 1)
    assert not is_running(tmp_path / "driver.py")
