"""Training runs for tests: in this process, or as processes of their own that can be signalled and killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import train

ROOT = Path(__file__).parents[1]
# A small network on small crops: seconds, not minutes
FAST = ["--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33",
        "--batch-size", "2", "--workers", "0", "--lr", "0.01", "--device", "cpu", "--checkname", "x"]  # fmt: skip


class Killed(BaseException):
    """Ends a run in this process at once: nothing of ours catches it."""


def in_process(data: Sequence[str], runs: Path, *flags: str) -> tuple[int, Path | None]:
    """(exit status, run folder or None) of train.py in this process."""
    try:
        status = train.main([*FAST, *data, "--run-dir", str(runs), *flags])
    except SystemExit as stop:  # argparse's way
        status = stop.code
    folders = sorted((runs / data[1] / "x").glob("experiment_*"))
    return status, folders[-1] if folders else None


def command(data: Sequence[str], runs: Path, *flags: str, launcher: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *launcher, str(ROOT / "train.py"), *FAST, *data, "--run-dir", str(runs), *flags]


def torchrun(processes: int, *more: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]


def begin(arguments: Sequence[str], environment: dict | None = None) -> subprocess.Popen:
    """A process in a group of its own, as a shell starts it."""
    environment = environment or os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def end(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    """(exit status, stdout, stderr); a process that does not end by itself is an error."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def complete(arguments: Sequence[str]) -> str:
    """stdout of a process that must end well."""
    status, out, err = end(begin(arguments))
    assert status == 0, err[-2000:]
    return out


def wait_for(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 90) -> None:
    last = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < last, "it never came"
        time.sleep(0.02)


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def said(text: str) -> list[str]:
    """The lines of stderr but for progress bars."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return [line for line in lines if line and not re.search(r"\d+%\|", line)]
