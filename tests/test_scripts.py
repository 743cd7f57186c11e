"""The shell scripts on small data."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, begin, complete, end, wait_for

from utils.run.checkpoint import read_checkpoint

SMALL = ["--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33", "--batch-size",
         "2", "--workers", "0"]  # fmt: skip


def bash(script: str, *flags: object, cwd: Path) -> str:
    """stdout of a script, which must exit with status 0."""
    return complete(["bash", str(ROOT / script), *map(str, flags)], {"PYTHON": sys.executable}, cwd)


@pytest.mark.slow
def test_train_voc(voc_root, sbd_root, tmp_path):
    flags = ["--data-root", voc_root, "--sbd-root", sbd_root, *SMALL, "--max-steps", "1"]
    out = bash("train_voc.sh", *flags, cwd=tmp_path)
    assert "pascal: 8 training and 3 validation images" in out
    (sheet,) = tmp_path.glob("run/pascal/deeplab-mobilenet/experiment_0/sheet.png")
    assert str(sheet.relative_to(tmp_path)) in out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "cityscapes"])
def test_train_coco_and_cityscapes(name, request, tmp_path):
    root = request.getfixturevalue(f"{name}_root")
    assert f"{name}: " in bash(f"train_{name}.sh", "--data-root", root, *SMALL, "--max-steps", "1", cwd=tmp_path)


@pytest.mark.slow
def test_train_demo_takes_flags(tmp_path):
    out = bash("train_demo.sh", "--max-steps", "1", "--no-val", "--head", "lite", "--workers", "0", cwd=tmp_path)
    assert "demo: 480 training" in out


@pytest.mark.slow
def test_setup_skips_a_python_without_the_requirements(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    script = f'PYTHON={bare}/bin/python; . "{ROOT}/scripts/setup.sh"; echo "$PYTHON"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() not in ("", f"{bare}/bin/python"), done.stderr


def descendants(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(child) for child in file.read().split()]
    return [process for child in children for process in (child, *descendants(child))]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to signal a whole job step")
def test_slurm_train_saves_stops_is_requeued_and_resumes(folder_root, tmp_path):
    """With a srun and a scontrol of the test in place of Slurm's. Signals go to every process of the job step."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nshift\n"$@"\n')
    (tools / "scontrol").write_text(
        f'#!/bin/bash\n[ "$1" = show ] && echo localhost || echo "$@" >> {tmp_path}/asked\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n", "SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "2",
             "SLURM_SUBMIT_DIR": str(ROOT), "PYTHON": sys.executable}  # fmt: skip
    environment = slurm | {"PATH": f"{tools}:{os.environ['PATH']}"}
    flags = ["--dataset", "folder", "--data-root", folder_root, "--run-dir", tmp_path / "run", *SMALL,
             "--device", "cpu", "--epochs", "300", "--no-val", "--batch-size", "4", "--workers", "1"]  # fmt: skip
    command = ["bash", str(ROOT / "slurm_train.sh"), *map(str, flags)]

    def checkpoint() -> Path | None:
        return next((tmp_path / "run").rglob("checkpoint.pth.tar"), None)

    def signal_step(process: subprocess.Popen, number: int) -> None:
        for pid in descendants(process.pid)[1:]:  # the first is srun, outside the step
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    process = begin(command, environment)
    wait_for(checkpoint, process)
    written = checkpoint().stat().st_mtime_ns
    signal_step(process, signal.SIGUSR1)
    wait_for(lambda: checkpoint().stat().st_mtime_ns > written, process)
    signal_step(process, signal.SIGTERM)
    status, out, err = end(process)
    step = read_checkpoint(checkpoint())["step"]
    assert status == 143 and f"stopped by signal 15 after step {step}" in out, err
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert "asked for by SIGUSR1: checkpoint of step" in out
    process = begin([*command, "--max-steps", str(step + 2)], environment)
    status, out, err = end(process)
    assert status == 0 and "resuming" in out, err
    assert read_checkpoint(checkpoint())["step"] == step + 2
