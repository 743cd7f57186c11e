"""Training runs for tests: in this process, or as processes that tests can signal and kill."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import train
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder

ROOT = Path(__file__).parents[1]
# A small network on small crops: seconds, not minutes
FAST = ["--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33",
        "--batch-size", "2", "--workers", "0", "--lr", "0.01", "--device", "cpu", "--checkname", "x"]  # fmt: skip


class Killed(BaseException):
    """Ends a run in this process as a kill does: no handler of the program catches it."""


def in_process(data: Sequence[str], runs: Path, *flags: str) -> tuple[int, Path | None]:
    """(exit status, run folder or None) of train.py in this process; `data` begins with --dataset NAME."""
    try:
        status = train.main([*FAST, *data, "--run-dir", str(runs), *flags])
    except SystemExit as stop:  # raised by argparse, and by SIGTERM before the first step
        status = stop.code
    folders = sorted((runs / data[1] / "x").glob("experiment_*"))
    return status, folders[-1] if folders else None


def patch_recorder(monkeypatch, actions: Mapping[int, Callable[[RunFolder], object]]) -> None:
    """Let runs in this process call `actions[step](run folder)` when they log that step, before it can be saved.

    What was saved before is on disk then.
    """

    class ActingRecorder(Recorder):
        def log_step(self, step: int, **values: float) -> None:
            if step in actions:
                self.wait()
                actions[step](self.folder)
            super().log_step(step, **values)

    monkeypatch.setattr(train, "Recorder", ActingRecorder)


def command(data: Sequence[str], runs: Path, *flags: str, launcher: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *launcher, str(ROOT / "train.py"), *FAST, *data, "--run-dir", str(runs), *flags]


def torchrun(processes: int, *more: str) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *more]


def begin(arguments: Sequence[str], environment: dict | None = None, cwd: Path | None = None) -> subprocess.Popen:
    """A process in a group of its own, as a shell starts it. After SIGABRT it prints where each thread was."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"} | (environment or {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, env=environment, cwd=cwd, text=True, start_new_session=True, **pipes)


def end(process: subprocess.Popen, seconds: float = 120) -> tuple[int, str, str]:
    """(exit status, stdout, stderr). A process that does not end by itself fails the test, with its stacks."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        tree = [process.pid, *descendants(process.pid)]
        for deadly in (signal.SIGABRT, signal.SIGKILL):
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, deadly)
            time.sleep(2)
        out, err = process.communicate(timeout=10)
        pytest.fail(f"no end within {seconds} s: {process.args}, processes {tree}\n{out[-2000:]}\n{err[-20000:]}")
    return process.returncode, out, err


def descendants(pid: int) -> list[int]:
    """Children, their children and so on; none where /proc does not tell."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *descendants(child)]
    return found


def complete(arguments: Sequence[str], environment: dict | None = None, cwd: Path | None = None) -> str:
    """stdout of a process, which must exit with status 0."""
    status, out, err = end(begin(arguments, environment, cwd), seconds=300)
    assert status == 0, err[-2000:]
    return out


def wait_for(condition: Callable[[], object], process: subprocess.Popen, seconds: float = 90) -> None:
    """Wait until `condition()` is true. Fails if `process` ends or `seconds` pass before."""
    last = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < last, f"not within {seconds} seconds"
        time.sleep(0.02)


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def said(text: str) -> list[str]:
    """The lines of stderr except progress bars."""
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return [line for line in lines if line and not re.search(r"\d+%\|", line)]


def error_line(text: str) -> str:
    """The last line of stderr, of which no other line belongs to a traceback."""
    assert "Traceback" not in text
    return said(text)[-1]
