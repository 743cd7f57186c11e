"""`<run dir>/<dataset>/<checkname>/experiment_<n>/`: the files of one run."""

import json
from pathlib import Path

from errors import UserError
from utils.checkpoint import write_atomically

CHECKPOINT, BEST = "checkpoint.pth.tar", "model_best.pth.tar"


class RunFolder:
    """`config.json`, `log.jsonl` (an object an epoch), the latest and the best checkpoint, TensorBoard events, and
    `metrics.json` and `sheet.png` of the last validation.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best = path / CHECKPOINT, path / BEST
        self.config, self.log = path / "config.json", path / "log.jsonl"
        self.metrics, self.sheet = path / "metrics.json", path / "sheet.png"

    @classmethod
    def create(cls, runs: Path) -> "RunFolder":
        """The next free `experiment_<n>` below `runs`, safe against other processes that create one."""
        number = max(experiments(runs), default=-1) + 1
        try:
            runs.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    (runs / f"experiment_{number}").mkdir()
                    return cls(runs / f"experiment_{number}")
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise UserError(f"cannot make a run folder in {runs} ({error.strerror}): give another --run-dir") from error

    def write_config(self, config: dict) -> None:
        write_atomically(self.config, (json.dumps(config, indent=2) + "\n").encode())

    def append_log(self, row: dict) -> None:
        with open(self.log, "a") as file:
            file.write(json.dumps(row) + "\n")

    def cut_back(self, epoch: int) -> None:
        """Drop log lines of epochs after `epoch`, and what a killed process left half written."""
        for part in self.path.glob(".*.part"):
            part.unlink()
        if self.log.is_file():
            # A killed process may leave half a line behind the last whole one
            lines = [line for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
            kept = [line for line in lines if json.loads(line)["epoch"] <= epoch]
            write_atomically(self.log, "".join(kept).encode())


def experiments(runs: Path) -> list[int]:
    names = (path.name.removeprefix("experiment_") for path in runs.glob("experiment_*"))
    return [int(name) for name in names if name.isdecimal()]


def newest_checkpoint(runs: Path) -> Path | None:
    """The last written checkpoint of the runs below `runs`; of two written at once, the later run's."""
    files = [(runs / f"experiment_{number}" / CHECKPOINT, number) for number in experiments(runs)]
    found = [(path.stat().st_mtime_ns, number, path) for path, number in files if path.is_file()]
    return max(found)[2] if found else None
