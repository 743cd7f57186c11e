"""benchmarks.ablation, with a stand-in for train.py that writes a log."""

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import ablation


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """The commands that were run; a run scores 0.5 + 0.01 seed, 0.1 more with --nesterov, and fails with --lr 9."""
    commands = []

    def train(command: list[str], cwd: Path) -> subprocess.CompletedProcess:
        commands.append(command)
        value = {name: command[command.index(name) + 1] for name in ("--seed", "--checkname", "--run-dir")}
        folder = Path(value["--run-dir"]) / "demo" / value["--checkname"] / "experiment_0"
        folder.mkdir(parents=True)
        miou = 0.5 + 0.01 * int(value["--seed"]) + 0.1 * ("--nesterov" in command)
        rows = [{"val_miou": None, "seconds": 1.5}, {"val_miou": 0.9, "seconds": 1}, {"val_miou": miou, "seconds": 1}]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return subprocess.CompletedProcess(command, 2 if "9" in command else 0)

    monkeypatch.setattr(subprocess, "run", train)
    return commands


def compare(folder: Path, *words: str) -> int:
    return ablation.main(["--dataset", "demo", "--base", "--epochs 3", "--out", str(folder), *words])


def rows(folder: Path) -> list[list[str]]:
    lines = (folder / "ablation.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_the_table_compares_the_last_epochs_seed_by_seed(tmp_path, trained, capsys):
    assert compare(tmp_path, "--vary", "--nesterov", "--seeds", "1", "3") == 0
    assert rows(tmp_path) == [
        ["base", "52.00", "1.41", "-", "2", "4 s"],
        ["`--nesterov`", "62.00", "1.41", "+10.00", "2", "4 s"],
    ]
    assert all("--resume auto" in " ".join(command) for command in trained)
    assert (tmp_path / "ablation.md").read_text().strip() in capsys.readouterr().out


def test_finished_runs_are_not_repeated(tmp_path, trained):
    compare(tmp_path, "--vary", "--nesterov", "--seeds", "1")
    assert len(trained) == 2
    compare(tmp_path, "--vary", "--nesterov", "--vary", "--lr 0.1", "--seeds", "1", "2")
    assert len(trained) == 6
    assert [row[4] for row in rows(tmp_path)] == ["2", "2", "2"]


def test_other_base_flags_are_other_runs(tmp_path, trained):
    compare(tmp_path, "--seeds", "1")
    compare(tmp_path, "--base", "--epochs 4", "--seeds", "1")
    assert len(trained) == 2


def test_a_failed_run_ends_it_with_one_line(tmp_path, trained, capsys):
    assert compare(tmp_path, "--vary", "--lr 9", "--seeds", "1") == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: train.py ended with status 2: correct the flags, or repeat the command to go on"
    ]
    assert [row[0] for row in rows(tmp_path)] == ["base"]


def test_flags_that_each_run_gets_are_refused(tmp_path, trained, capsys):
    assert compare(tmp_path, "--vary", "--seed=4") == 2
    assert "--seed in --base or --vary" in capsys.readouterr().err and not trained
