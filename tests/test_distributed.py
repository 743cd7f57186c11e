"""Several processes over gloo train and score as one process does."""

import json
import sys

import pytest
import torch
from running import ROOT, begin, command, complete, end, in_process, log, torchrun

from utils.run.checkpoint import read_checkpoint


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root), "--batch-size", "4"]


OPTIONS = "--sam 0.1 --loss-type ce+dice+rmi --clip-grad 1 --class-uniform 0.5 --color-jitter 0.4 --aux-weight 0.4"


@pytest.mark.parametrize(
    "options", ["--use-balanced-weights", pytest.param(OPTIONS, marks=pytest.mark.slow)], ids=["plain", "options"]
)
def test_two_processes_train_and_score_like_one(data, tmp_path, options):
    flags = ["--freeze-bn", "--dropout", "0", "--epochs", "3", *options.split()]
    _, folder = in_process(data, tmp_path / "one", *flags)
    out = complete(command(data, tmp_path / "two", *flags, launcher=torchrun(2)))
    (other,) = (tmp_path / "two/folder/x").iterdir()  # the first process alone writes
    assert "local batch norm" in out and out.count("run folder") == 1
    for one, two in zip(log(folder), log(other), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        assert two["val_miou"] == pytest.approx(one["val_miou"], abs=1e-3)
    one, two = (read_checkpoint(each / "checkpoint.pth.tar")["state_dict"] for each in (folder, other))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_evaluation_scores_each_image_once(data, tmp_path):
    """Two images for three processes: one has none, and nothing hangs."""
    complete(command(data, tmp_path / "run", "--max-steps", "1"))
    (checkpoint,) = (tmp_path / "run").rglob("checkpoint.pth.tar")
    results = []
    for processes in (1, 3):
        out = tmp_path / f"out{processes}"
        flags = ["--checkpoint", checkpoint, "--out", out, "--workers", "0", "--device", "cpu", "--trimap", "2",
                 "--boundary", "--save-predictions", out / "saved"]  # fmt: skip
        launcher = torchrun(processes) if processes > 1 else []
        complete([sys.executable, *launcher, str(ROOT / "evaluate.py"), *map(str, flags)])
        rows = (out / "per_image.csv").read_text(), (out / "confusion.csv").read_text()
        results.append((json.loads((out / "metrics.json").read_text()), *rows, len(list((out / "saved").iterdir()))))
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_user_error_is_one_line_of_the_first_process(data, tmp_path):
    status, _, err = end(begin(command(data, tmp_path / "run", "--sync-bn", launcher=torchrun(2))))
    assert status != 0 and err.count("\nerror: ") + err.startswith("error: ") == 1
    assert "error: --sync-bn works on GPUs alone" in err
    assert not (tmp_path / "run").exists()


FORKING = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch.distributed as dist
def look():
    print("forks", "connected" if dist.is_initialized() else "alone", flush=True)
os.register_at_fork(before=look)
import evaluate, train
sys.exit({"train": train, "evaluate": evaluate}[sys.argv[2]].main(sys.argv[3:]))
"""


@pytest.mark.slow
def test_no_process_is_forked_once_the_ranks_are_connected(data, tmp_path):
    """About 1 in 6,000 such forks inherits a lock of the interpreter, and its parent waits forever."""
    (tmp_path / "forking.py").write_text(FORKING)
    start = [sys.executable, *torchrun(2), str(tmp_path / "forking.py"), str(ROOT)]
    _, _, *flags = command(data, tmp_path / "run", "--epochs", "2", "--workers", "1")
    checkpoint = tmp_path / "run/folder/x/experiment_0/checkpoint.pth.tar"
    scoring = ["--checkpoint", str(checkpoint), "--device", "cpu", "--workers", "1", "--out", str(tmp_path / "scores")]
    for arguments, num_forks in ((["train", *flags], 4), (["evaluate", *scoring], 2)):
        out = complete([*start, *arguments])
        assert out.count("forks alone") == num_forks and "forks connected" not in out


RESTARTED = """
import os, signal, sys, time, torch
sys.path.insert(0, sys.argv[1])
from utils.distributed import all_reduce, connect, process_group
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if attempt == 1 and rank == 1:
    time.sleep(3)  # long enough for the others to read what the dead rank 1 left in torchrun's store
with process_group():
    connect(torch.device("cpu"))
    total = int(all_reduce(torch.ones(1)))
    if attempt == 0 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if attempt == 0:
        time.sleep(60)
    with open(f"{sys.argv[2]}/{rank}", "w") as file:
        file.write(f"attempt {attempt} sum {total}")
"""


@pytest.mark.slow
def test_restarted_ranks_join_each_other_and_no_dead_one(tmp_path):
    (tmp_path / "restarted.py").write_text(RESTARTED)
    (tmp_path / "written").mkdir()
    launcher = torchrun(3, "--max-restarts=1")
    complete([sys.executable, *launcher, str(tmp_path / "restarted.py"), str(ROOT), str(tmp_path / "written")])
    written = {path.name: path.read_text() for path in (tmp_path / "written").iterdir()}
    assert written == {str(rank): "attempt 1 sum 3" for rank in range(3)}
