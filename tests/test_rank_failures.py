"""A process that fails ends all processes of its run within a minute, and its error is the one that is seen."""

import re
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, begin, command, end, torchrun

from utils.run.checkpoint import read_checkpoint

DRIVER = """
import atexit, os, sys, time
sys.path.insert(0, sys.argv[1])
import torch.distributed as dist
import engine, train
from dataloaders import TrainDataset
from utils.errors import UserError
from utils.train_step import TrainStep

place, rank, flags = sys.argv[2], sys.argv[3], sys.argv[4:]
FAULTS = {  # where a call fails: owner, name, error, number of the call
    "start": (train, "select_device", UserError, 1),
    "set-up": (train, "start_workers", UserError, 1),
    "worker": (TrainDataset, "__getitem__", UserError, 3),
    "step": (TrainStep, "backward", RuntimeError, 2),
    "validation": (engine, "score", RuntimeError, 1),
    "hang": (TrainStep, "backward", RuntimeError, 1),
}

def add_fault(owner, name, error, number):
    original, calls = getattr(owner, name), []
    def failing(*arguments, **named):
        calls.append(name)
        if len(calls) < number:
            return original(*arguments, **named)
        if error is UserError:
            time.sleep(2)  # until the others wait for this process
        print(f"fails at {time.time()}", flush=True)
        raise error("broken on purpose")
    setattr(owner, name, failing)

def hang(*_, **__):
    while True:
        time.sleep(1)

if os.environ["RANK"] == rank:
    add_fault(*FAULTS[place])
    # As with NCCL, whose kernels wait for the others: the process must end without any of these
    dist.destroy_process_group = engine.Trainer.__del__ = hang
    atexit.register(hang)
elif place == "hang":
    engine.Trainer.train_step = hang

if __name__ == "__main__":
    sys.exit(train.main(flags))
"""


def run_driver(tmp_path: Path, root: Path, place: str, rank: int, processes: int) -> str:
    """stderr of a training run of which `rank` fails at `place`. All its processes must end within 60 seconds."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    data = ["--dataset", "folder", "--data-root", str(root), "--batch-size", str(2 * processes)]
    workers = "1" if place == "worker" else "0"
    _, _, *flags = command(data, tmp_path / "run", "--epochs", "3", "--workers", workers, "--head-lr-factor", "1")
    status, out, err = end(
        begin([sys.executable, *torchrun(processes), str(driver), str(ROOT), place, str(rank), *flags])
    )
    assert time.time() - float(re.search(r"fails at (\S+)", out)[1]) < 60 and status != 0
    assert not is_running(driver)
    return err


def is_running(driver: Path) -> bool:
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes())
        except OSError:  # it has just ended
            continue
    return any(str(driver).encode() in each for each in commands)


def root_cause(err: str) -> tuple[int, int]:
    """(rank, exit status) in torchrun's report."""
    report = err[err.index("Root Cause") :]
    return tuple(int(re.search(rf"{name}\s*: (\d+)", report)[1]) for name in ("rank", "exitcode"))


def assert_is_the_only_error(err: str, rank: int, line: str, status: int) -> None:
    """`rank` alone printed an error, and torchrun reports it. The others ended by themselves or by SIGTERM."""
    assert re.findall(r"(?:rank \d: )?\w+: broken on purpose$", err, re.MULTILINE) == [line]
    assert root_cause(err) == (rank, status)
    assert err.count(", in failing") == (1 if status == 1 else 0)  # tracebacks that lead to the error
    assert "another process is gone" not in err and "SIGKILL" not in err


@pytest.mark.slow
def test_a_user_error_before_the_ranks_meet_ends_all(folder_root, tmp_path):
    err = run_driver(tmp_path, folder_root, "start", rank=0, processes=2)
    assert_is_the_only_error(err, 0, "error: broken on purpose", 2)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rank"), [(2, 1), (3, 0)])
@pytest.mark.parametrize("place", ["set-up", "worker"])
def test_a_user_error_of_one_rank_ends_all(folder_root, tmp_path, place, processes, rank):
    err = run_driver(tmp_path, folder_root, place, rank, processes)
    assert_is_the_only_error(err, rank, "rank 1: error: broken on purpose" if rank else "error: broken on purpose", 2)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rank"), [(2, 0), (3, 1)])
@pytest.mark.parametrize("place", ["step", "validation"])
def test_an_unexpected_error_of_one_rank_ends_all(folder_root, tmp_path, place, processes, rank):
    err = run_driver(tmp_path, folder_root, place, rank, processes)
    assert_is_the_only_error(err, rank, "RuntimeError: broken on purpose", 1)
    (checkpoint,) = tmp_path.rglob("checkpoint.pth.tar")
    assert read_checkpoint(checkpoint)["step"] == 1  # the last step before the error


@pytest.mark.slow
def test_a_rank_that_hangs_does_not_outlive_one_that_fails(folder_root, tmp_path):
    """As in an NCCL kernel: it does not return, and SIGTERM only asks it to stop after the step.

    torchrun waits 30 seconds before it kills it.
    """
    err = run_driver(tmp_path, folder_root, "hang", rank=0, processes=2)
    assert err.count("RuntimeError: broken on purpose") == 1 and root_cause(err) == (0, 1) and "SIGKILL" in err
