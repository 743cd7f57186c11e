"""`<run dir>/<dataset>/<checkname>/experiment_<n>/`: the files of one run."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from utils.distributed import broadcast, is_main_process
from utils.errors import writing
from utils.run.background import BackgroundWriter
from utils.run.files import clear_parts, write_atomically
from utils.run.kept import kept_checkpoints

CHECKPOINT, BEST, BEST_WEIGHTS = "checkpoint.pth.tar", "model_best.pth.tar", "model_best.safetensors"
FACTS = ("versions", "commit", "dataset_sizes", "commands", "initial_weights")  # in config.json besides flags


class RunFolder:
    """`config.json`, `first_batch.png`, `log.jsonl` (one object per epoch), the latest and the best checkpoint, the
    weights of the best alone, TensorBoard events, `metrics.json`, `sheet.png`, `curves.png` and `report.html` of
    the last validation, `broken.json` if images were left out, and with --keep older checkpoints.

    A running training writes all but `config.json` through `writer`: it waits for no disk, and none that is full ends
    it. Who reads the files of a running training calls `writer.wait` before.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best, self.best_weights = path / CHECKPOINT, path / BEST, path / BEST_WEIGHTS
        self.config, self.log = path / "config.json", path / "log.jsonl"
        self.first_batch = path / "first_batch.png"
        self.metrics, self.sheet, self.broken = path / "metrics.json", path / "sheet.png", path / "broken.json"
        self.curves = path / "curves.png"
        self.report = path / "report.html"
        self.writer = BackgroundWriter()

    @classmethod
    def open(cls, runs: Path, resumed: str | None) -> "RunFolder":
        """The folder of the checkpoint `resumed` if it is a run's, else a new one in `runs`; the same on all ranks."""
        if resumed is not None and (Path(resumed).parent / "config.json").is_file():
            return cls(Path(resumed).parent)
        return cls(Path(broadcast(str(cls.create(runs).path) if is_main_process() else "")))

    @classmethod
    def create(cls, runs: Path) -> "RunFolder":
        """Make the next free `experiment_<n>` in `runs`, also if other processes do the same at the same time.

        Raises UserError if it cannot be made.
        """
        with writing(runs, "give another `run_dir`"):
            runs.mkdir(parents=True, exist_ok=True)
            number = max(experiment_numbers(runs), default=-1) + 1
            while True:
                try:
                    (runs / f"experiment_{number}").mkdir()
                    return cls(runs / f"experiment_{number}")
                except FileExistsError:
                    number += 1

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove the folder if it is empty: the run could not start."""
        with contextlib.suppress(OSError):  # not empty
            self.path.rmdir()

    def write_config(self, config: dict) -> None:
        """Raises UserError if the folder cannot be written: a run must not start there."""
        with writing(self.config, "make room there, or give another `run_dir`"):
            write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def append_log(self, row: dict) -> None:
        self.writer.append(self.log, (json.dumps(row) + "\n").encode())

    def read_log(self) -> list[dict]:
        """The rows of the log. Raises OSError."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.is_file() else []

    def truncate_to(self, epoch: int) -> None:
        """Drop the log's lines of epochs after `epoch`, and the partial files of killed processes. Raises OSError."""
        clear_parts(self.path)
        if self.log.is_file():
            content = self.log.read_bytes()
            kept = b"".join(line for line in content.splitlines(keepends=True) if is_kept(line, epoch))
            if kept != content:
                write_atomically(self.log, kept)


def is_kept(line: bytes, epoch: int) -> bool:
    """Whether `line` is complete and of an epoch up to `epoch`: a process that dies may leave half a line."""
    try:
        return line.endswith(b"\n") and json.loads(line)["epoch"] <= epoch
    except (ValueError, TypeError, KeyError):
        return False


def experiment_numbers(runs: Path) -> list[int]:
    """The n of each `experiment_<n>` in `runs`, in no order."""
    names = (path.name.removeprefix("experiment_") for path in runs.glob("experiment_*"))
    return [int(name) for name in names if name.isdecimal()]


def newest_checkpoint(runs: Path) -> Path | None:
    """The first of `newest_checkpoints`, or None."""
    return next(newest_checkpoints(runs), None)


def newest_checkpoints(runs: Path) -> Iterator[Path]:
    """The checkpoints of the runs in `runs`, the last written run first.

    Of each run the latest, then the best and those of --keep, the last written first. Of two runs written at the same
    time, the one with the higher number comes first.
    """
    found = []
    for number in experiment_numbers(runs):
        latest, *others = (runs / f"experiment_{number}" / name for name in (CHECKPOINT, BEST))
        others = [path for path in (*others, *kept_checkpoints(latest.parent).values()) if path.exists()]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        if paths := [latest] * latest.exists() + others:
            found.append((paths[0].stat().st_mtime_ns, number, paths))
    for _, _, paths in sorted(found, reverse=True):
        yield from paths


def newest_of_others(runs: Path) -> Path | None:
    """The folder of the newest run with a checkpoint in the folders beside `runs`: of the same data, other names."""
    return next(iter(runs_below(runs.parent, f"*/experiment_*/{CHECKPOINT}", besides=runs)), None)


def runs_below(folder: Path, *patterns: str, besides: Path | None = None) -> list[Path]:
    """The folders of the runs whose checkpoints match one of `patterns` in `folder`, the last written first."""
    found = {path.parent: path.stat().st_mtime_ns for pattern in patterns for path in folder.glob(pattern)}
    return sorted((run for run in found if run.parent != besides), key=found.get, reverse=True)
