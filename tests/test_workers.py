"""Data workers: the same batches for every start method, signals, and an end with their parent."""

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd

import pytest
import torch
from running import ROOT, begin, command, end

from dataloaders import build_dataset, start_workers, train_loader
from utils.run.worker_signals import hide_connection_errors, ignore_signals_in_worker

LOADING = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from torch.utils.data import DataLoader
from dataloaders import RandomScaleCrop, ResumableBatchSampler, TrainDataset, build_dataset
from dataloaders.loaders import init_worker

if __name__ == "__main__":
    root, method, end = sys.argv[2:]
    crop = RandomScaleCrop((33, 33), fill=(0, 0, 0))
    samples = TrainDataset(build_dataset("pascal", "train", root=root), crop, seed=1, skip_broken=True)
    plain = list(DataLoader(samples, batch_sampler=ResumableBatchSampler(6, 2, seed=1)))
    how = {"num_workers": 2, "multiprocessing_context": method, "persistent_workers": True}
    loader = DataLoader(
        samples, batch_sampler=ResumableBatchSampler(6, 2, seed=1), worker_init_fn=init_worker, **how
    )
    iterator = iter(loader)
    for batch, expected in zip(iterator, plain, strict=True):
        assert batch["id"] == expected["id"]
        assert torch.equal(batch["image"], expected["image"]) and torch.equal(batch["label"], expected["label"])
    kept = iter(loader)  # alive until the end
    print(*(child.pid for child in torch.multiprocessing.active_children()), flush=True)
    if end == "error":
        raise RuntimeError("an error of the training process")
    if end == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(multiprocessing.get_all_start_methods()))
@pytest.mark.parametrize(("ending", "status"), [("error", 1), ("kill", -signal.SIGKILL)])
def test_workers_of_every_start_method_load_the_same_batches_and_end_with_their_parent(
    method, ending, status, voc_root, tmp_path
):
    script = tmp_path / "loading.py"
    script.write_text(LOADING)
    process = begin([sys.executable, str(script), str(ROOT), str(voc_root), method, ending])
    got, out, err = end(process, seconds=60)  # a worker that is left over keeps the pipes open
    assert got == status and "AssertionError" not in err, err
    workers = [int(pid) for pid in out.split()]
    last = time.monotonic() + 10
    while any(map(is_alive, workers)) and time.monotonic() < last:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(is_alive, workers))


def test_started_workers_load_nothing_until_a_position_is_set(folder_root):
    """Two workers that were started give the batches of the process itself, from the position that is set, and as
    networks take them: channels last.
    """

    def batches(workers: int) -> list[tuple]:
        loader = train_loader(
            build_dataset("folder", "train", root=str(folder_root)), crop_size=(33, 33), base_size=None, batch_size=2,
            mean=(0.5, 0.5, 0.5), accumulate=1, seed=1, rank=0, world_size=1, workers=workers, pin_memory=False,
            skip_broken=False,
        )  # fmt: skip
        start_workers(loader)
        assert list(loader) == []
        loader.batch_sampler.set_position(3, 1)
        found = list(loader)
        assert all(batch["image"].is_contiguous(memory_format=torch.channels_last) for batch in found)
        return [(batch["id"], batch["image"].tolist(), batch["label"].tolist()) for batch in found]

    assert len(batches(0)) == 2 and batches(2) == batches(0)


@pytest.mark.slow
def test_a_run_that_fails_ends_although_its_workers_ignore_sigterm(folder_root, tmp_path):
    """Python ends the workers of a process that ends by SIGTERM, and waits for them."""
    script = tmp_path / "failing.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import train\nkept = []\n"
        "def fail(self, *values, **named):\n    kept.append(self)\n    raise RuntimeError('an error of ours')\n"
        "train.Recorder.log_step = fail\n"
        "sys.exit(train.main(sys.argv[1:]))\n"
    )
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    arguments = command(data, tmp_path / "run", "--epochs", "3", "--workers", "2")
    status, _, err = end(begin([sys.executable, str(script), *arguments[2:]]), seconds=60)
    assert status == 1 and "RuntimeError: an error of ours" in err


def offer_a_file(connection) -> None:
    """What a data worker does to send a tensor: its parent fetches the open file from a thread of the worker."""
    ignore_signals_in_worker()
    with open(os.devnull) as file:
        connection.send(DupFd(file.fileno()))
    connection.recv()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_parent_that_is_interrupted_while_it_receives_a_batch_prints_no_error_in_the_worker(capfd):
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=offer_a_file, args=(there,), daemon=True)
    worker.start()
    offer = here.recv()
    Client(offer._id[0], authkey=multiprocessing.current_process().authkey).close()
    os.close(offer.detach())  # the same thread still answers
    here.send("end")
    worker.join()
    assert worker.exitcode == 0 and capfd.readouterr().err == ""
    hide_connection_errors(KeyError, KeyError("x"), None)
    assert "KeyError" in capfd.readouterr().err


WITHOUT_POSIX = """
import multiprocessing, os, signal, sys
import filelock, torch.utils.data, torch._dynamo, tensorboardX, scipy.io, matplotlib.pyplot  # they may use what goes
from multiprocessing import resource_tracker
resource_tracker.ensure_running()  # Python's own spawn uses them here
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "sigtimedwait", "sigwait", "pthread_sigmask", "pthread_kill"):
    delattr(signal, name)
for name in ("setpgid", "killpg", "getpgid", "setsid", "mkfifo", "fork", "forkpty"):
    delattr(os, name)
sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))  # None: they cannot be imported
def open_file(path, *flags, of_os=os.open, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))  # Windows opens no folder
    return of_os(path, *flags, **named)
os.open = open_file
root, runs, workers = sys.argv[1:]
sys.path.insert(0, root)
import importlib
from pathlib import Path
for name in ("config", "dataloaders", "engine", "evaluate", "modeling", "mypath", "predict", "train", "utils"):
    for path in sorted(Path(root, name).rglob("*.py")) or [Path(root, f"{name}.py")]:
        importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
import train
flags = ["--dataset", "demo", "--head", "lite", "--crop-size", "33", "--batch-size", "2", "--max-steps", "1",
         "--no-val", "--device", "cpu", "--run-dir", runs, "--workers", workers]
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.exit(train.main(flags))
"""


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.slow
def test_a_step_trains_without_what_only_posix_has(workers, tmp_path):
    script = tmp_path / "without_posix.py"
    script.write_text(WITHOUT_POSIX)
    status, out, err = end(begin([sys.executable, str(script), str(ROOT), str(tmp_path / "run"), workers]), seconds=60)
    assert status == 0 and "run folder" in out, err
    assert list(tmp_path.rglob("checkpoint.pth.tar"))
