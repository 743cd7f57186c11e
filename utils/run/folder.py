"""`<run dir>/<dataset>/<checkname>/experiment_<n>/`: the files of one run."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from utils.distributed import broadcast, is_main_process
from utils.errors import writing
from utils.run.files import clear_parts, write_atomically
from utils.run.writer import RetryingWriter

CHECKPOINT, BEST = "checkpoint.pth.tar", "model_best.pth.tar"


class RunFolder:
    """`config.json`, `log.jsonl` (an object an epoch), the latest and the best checkpoint, TensorBoard events,
    `metrics.json` and `sheet.png` of the last validation, and `broken.json` where images were skipped.

    While a run trains, all but `config.json` goes through `writer`: a full disk does not end it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best = path / CHECKPOINT, path / BEST
        self.config, self.log = path / "config.json", path / "log.jsonl"
        self.metrics, self.sheet, self.broken = path / "metrics.json", path / "sheet.png", path / "broken.json"
        self.writer = RetryingWriter()

    @classmethod
    def open(cls, runs: Path, resumed: str | None) -> "RunFolder":
        """The folder of the checkpoint `resumed`, else a new one below `runs`; the same in every process."""
        if resumed is not None and (Path(resumed).parent / "config.json").is_file():
            return cls(Path(resumed).parent)
        return cls(Path(broadcast(str(cls.create(runs).path) if is_main_process() else "")))

    @classmethod
    def create(cls, runs: Path) -> "RunFolder":
        """The next free `experiment_<n>` below `runs`, safe against other processes that create one."""
        with writing(runs, "give another --run-dir"):
            runs.mkdir(parents=True, exist_ok=True)
            number = max(experiments(runs), default=-1) + 1
            while True:
                try:
                    (runs / f"experiment_{number}").mkdir()
                    return cls(runs / f"experiment_{number}")
                except FileExistsError:
                    number += 1

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove the folder of a run that could not start."""
        with contextlib.suppress(OSError):  # it is not empty
            self.path.rmdir()

    def write_config(self, config: dict) -> None:
        """Raises UserError where the folder cannot be written: a run must not start there."""
        with writing(self.config, "make room there, or give another --run-dir"):
            write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def append_log(self, row: dict) -> None:
        self.writer.append(self.log, (json.dumps(row) + "\n").encode())

    def truncate_to(self, epoch: int) -> None:
        """Drop log lines of epochs after `epoch`, and what a killed process left half written."""
        clear_parts(self.path)
        if self.log.is_file():
            content = self.log.read_bytes()
            kept = b"".join(line for line in content.splitlines(keepends=True) if is_logged(line, epoch))
            if kept != content:
                write_atomically(self.log, kept)


def is_logged(line: bytes, epoch: int) -> bool:
    """A whole line of an epoch up to `epoch`: a process or machine that went down may leave half of one."""
    try:
        return line.endswith(b"\n") and json.loads(line)["epoch"] <= epoch
    except (ValueError, TypeError, KeyError):
        return False


def experiments(runs: Path) -> list[int]:
    names = (path.name.removeprefix("experiment_") for path in runs.glob("experiment_*"))
    return [int(name) for name in names if name.isdecimal()]


def newest_checkpoint(runs: Path) -> Path | None:
    """The last written checkpoint of the runs below `runs`; of two written at once, the later run's."""
    return next(newest_checkpoints(runs), None)


def newest_checkpoints(runs: Path) -> Iterator[Path]:
    """Where to go on, the run last written first; of each run the latest checkpoint before the best."""
    found = []
    for number in experiments(runs):
        paths = [runs / f"experiment_{number}" / name for name in (CHECKPOINT, BEST)]
        if paths := [path for path in paths if path.exists()]:
            found.append((paths[0].stat().st_mtime_ns, number, paths))
    for _, _, paths in sorted(found, reverse=True):
        yield from paths
