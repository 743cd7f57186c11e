"""Kill training runs at random moments, resume them, and compare their results with those of an unstopped run.

    python -m benchmarks.kill_resume --kills 30 [--seed 0] [--workers 2] [--cache ram]

Small runs on the demo data, in one process on the CPU. A kill is a SIGKILL after a random time, or at a random call
of a function (benchmarks/killed_train.py). Prints a line for each kill and each failure; exits with 1 after a failure.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.flags import answer_early


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--cache", default="off", help="of the runs that are killed")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import torch
from tensorboardX.proto.event_pb2 import Event

from utils.run.checkpoint import read_checkpoint
from utils.run.folder import BEST, BEST_WEIGHTS, CHECKPOINT, newest_checkpoint
from utils.run.tensorboard import read_records

ROOT = Path(__file__).parents[1]
# 2 epochs of 20 steps, each validated on 80 images, with checkpoints in between
FLAGS = ["--dataset", "demo", "--backbone", "mobilenet", "--head", "lite", "--crop-size", "33", "--batch-size", "24",
         "--epochs", "2", "--save-every", "6", "--lr", "0.02", "--ema", "0.9", "--device", "cpu", "--checkname", "x",
         "--resume", "auto"]  # fmt: skip
# Upper bounds of the random number of calls until a run dies at a place
MAX_CALLS = {"step": 30, "write": 12, "rename": 12, "log": 12, "validation": 100, "resume": 1}
SECONDS = (1.0, 14.0)  # from the start of a process to a kill after a random time
TIMING = {"epoch_seconds", "seconds", "config", "train/pictures_per_second"}


def start(
    runs: Path, workers: int, moment: str | None = None, seconds: float | None = None, cache: str = "off"
) -> subprocess.CompletedProcess:
    """Start or resume the run, until it ends or is killed at `moment` or after `seconds`."""
    command = [sys.executable, "-m", "benchmarks.killed_train", moment] if moment else [sys.executable, "train.py"]
    command += [*FLAGS, "--run-dir", str(runs), "--workers", str(workers), "--cache", cache]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def draw_moment(chance: random.Random) -> tuple[str | None, float | None]:
    """(place:count, None), or (None, seconds)."""
    place = chance.choice(["clock", *MAX_CALLS])
    if place == "clock":
        return None, chance.uniform(*SECONDS)
    return f"{place}:{chance.randint(1, MAX_CALLS[place])}", None


def run_folder(runs: Path) -> Path | None:
    checkpoint = newest_checkpoint(runs / "demo" / "x")
    return checkpoint and checkpoint.parent


def differences(one: object, two: object, name: str = "") -> list[str]:
    """The places where two nested values differ by any bit, except for entries that depend on the clock."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = [key for key in one.keys() | two.keys() if key not in TIMING]
        return [text for key in keys for text in differences(one.get(key), two.get(key), f"{name}/{key}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = zip(one, two, strict=True)
        return [text for place, pair in enumerate(pairs) for text in differences(*pair, f"{name}/{place}")]
    is_same = torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
    return [] if is_same else [f"{name.removeprefix('/')} differs"]


def content(folder: Path) -> dict:
    """Everything in the folder of a finished run that a kill must not change."""
    files = {name: read_checkpoint(folder / name) for name in (CHECKPOINT, BEST, BEST_WEIGHTS)}
    files["log.jsonl"] = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    files["metrics.json"] = json.loads((folder / "metrics.json").read_text())
    return files | {"events": scalars(folder), "stray files": sorted(str(path) for path in folder.glob(".*"))}


def scalars(folder: Path) -> list[tuple]:
    """(step, tag, value) of each scalar in TensorBoard's files, and (step, tag, None) of each image."""
    records = [record for path in folder.glob("events.*") for record in read_records(path.read_bytes())]
    events = [Event.FromString(record[12:-4]) for record in records]
    rows = [(event.step, value.tag, value) for event in events for value in event.summary.value]
    rows = [(s, tag, v.simple_value if v.HasField("simple_value") else None) for s, tag, v in rows if tag not in TIMING]
    return sorted(rows, key=str)


def check_killed(runs: Path, process: subprocess.CompletedProcess) -> tuple[str, list[str]]:
    """(position of the run, failures) after a kill."""
    if process.returncode != -9:
        return "", [f"ended with {process.returncode} instead of the kill: {process.stderr.strip()[-300:]}"]
    folder = run_folder(runs)
    if folder is None:
        return "no checkpoint yet", []
    try:
        return f"checkpoint of step {read_checkpoint(folder / CHECKPOINT)['step']}", []
    except UserError as error:
        return "", [str(error)]


def measure(kills: int, seed: int, workers: int, cache: str, work: Path) -> list[str]:
    """Kill `kills` times, over as many runs as that takes. Returns the failures."""
    chance, failures = random.Random(seed), []
    first = start(work / "whole", workers)
    if first.returncode:
        return [f"the run that is not killed ended with {first.returncode}: {first.stderr.strip()[-300:]}"]
    whole, done, runs = content(run_folder(work / "whole")), 0, 0
    while True:
        folder, is_over = work / f"killed{runs}", False
        while not is_over:
            moment, seconds = draw_moment(chance) if done < kills else (None, None)
            process = start(folder, workers, moment, seconds, cache)
            if process.returncode == 0:
                is_over = True
                continue
            done += 1
            text, found = check_killed(folder, process)
            print(f"kill {done:>3}  {moment or f'after {seconds or 0:.1f} s':<16} {text or found[0]}", flush=True)
            failures += [f"kill {done}: {line}" for line in found]
            is_over = bool(found)
        runs += 1
        left = run_folder(folder)
        found = differences(whole, content(left)) if left else ["it left no checkpoint"]
        failures += [f"run {runs}: {line}" for line in found]
        print(f"run {runs}: {'equal, bit for bit' if not found else f'{len(found)} differences'}", flush=True)
        if done >= kills:
            print(f"{done} kills in {runs} runs, {len(failures)} failures")
            return failures


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        failures = measure(args.kills, args.seed, args.workers, args.cache, Path(work))
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
