"""Finished and running runs as their folders tell of them."""

import json
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UserError
from utils.run.folder import FACTS
from utils.run.log_rows import best_row

# In config.json, but no flag that shapes a run
NOT_COMPARED = {*FACTS, "run_dir", "resume", "config"} - {"initial_weights"}


@dataclass(frozen=True)
class Run:
    """`rows` of log.jsonl; `classes` empty where no row names them, as in the logs of older versions."""

    path: Path
    config: dict
    rows: list[dict]

    @property
    def classes(self) -> list[str]:
        return next((list(row["val_iou"]) for row in reversed(self.rows) if row.get("val_iou")), [])

    @property
    def best(self) -> dict | None:
        """The row of the highest mIoU, the first of several."""
        return best_row(self.rows)

    @property
    def last(self) -> dict | None:
        return self.rows[-1] if self.rows else None


def open_run(path: Path) -> Run:
    """The run of a folder, or of a file in it. Raises UserError where there is none."""
    if not path.exists():
        raise UserError(f"{path}: no such run, give a run folder or a checkpoint in one")
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no config.json: give the folder of a run, experiment_<n>")
    config = read_json(folder / "config.json")
    log = folder / "log.jsonl"
    lines = log.read_text(errors="replace").splitlines(keepends=True) if log.is_file() else []
    rows = [parse(line, log) for line in lines if line.endswith("\n")]  # the last may be half written
    return Run(folder, config, rows)


def read_json(path: Path) -> dict:
    return parse(path.read_text(errors="replace"), path)


def parse(text: str, path: Path) -> dict:
    """A JSON object. Raises UserError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): give another run") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {text.strip()[:40]!r} instead of an object: give another run")
    return value


def names_of(runs: list[Run]) -> list[str]:
    """Of each run its path without what all paths begin and end with."""
    parts = [list(run.path.resolve().parts) for run in runs]
    for place in (0, -1):
        while all(len(each) > 1 and each[place] == parts[0][place] for each in parts):
            for each in parts:
                del each[place]
    return ["/".join(each) for each in parts]


def differing_flags(runs: list[Run]) -> dict[str, list]:
    """{flag: its value in each run} of the values that are not the same in all; None where a run has none."""
    keys = [key for key in dict.fromkeys(key for run in runs for key in run.config) if key not in NOT_COMPARED]
    values = {key: [run.config.get(key) for run in runs] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def differences_of_data(runs: list[Run], names: list[str]) -> list[str]:
    """A note where data sets or classes differ: their scores do not compare."""
    notes = []
    datasets = [run.config.get("dataset") for run in runs]
    if len(set(datasets)) > 1:
        each = ", ".join(f"{name}: {dataset}" for name, dataset in zip(names, datasets, strict=True))
        notes.append(f"the runs have different data sets ({each}): their scores do not compare")
    known = {tuple(run.classes) for run in runs if run.classes}
    if len(known) > 1:
        each = ", ".join(f"{name}: {len(run.classes) or 'unknown'}" for name, run in zip(names, runs, strict=True))
        notes.append(f"the runs have different classes ({each}): their mIoU does not compare")
    return notes
