"""`python -m utils.run.compare`: what it prints and writes of runs, and of folders that are none."""

import json
import re
from pathlib import Path

import pytest

from utils.run import compare


def make_run(folder: Path, *, mious=(0.1, 0.4, 0.3), classes=("cat", "dog"), **config: object) -> Path:
    """A run folder with a log; the config holds a data set and an lr unless `config` says otherwise."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"dataset": "demo", "lr": 0.01, "seed": 1} | config))
    rows = []
    for epoch, miou in enumerate(mious, 1):
        row = {"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "lr": 0.01, "seconds": 1.0}
        row |= {"val_loss": 0.9 / epoch, "val_miou": miou, "val_iou": dict.fromkeys(classes, miou)}
        rows.append(json.dumps(row) + "\n")
    (folder / "log.jsonl").write_text("".join(rows))
    return folder


@pytest.fixture
def two(tmp_path) -> list[Path]:
    changed = {"lr": 0.05, "commands": ["python train.py --lr 0.05"], "run_dir": "other"}
    return [make_run(tmp_path / "runs/a"), make_run(tmp_path / "runs/b", mious=(0.2, 0.5), **changed)]


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_scores_and_the_flags_that_differ(two, capsys):
    assert compare.main(list(map(str, two))) == 0
    printed = lines(capsys.readouterr().out)
    assert ["a", "3", "30", "40.00", "2", "30.00", "0.3000", "0.3333"] in printed
    assert ["b", "2", "20", "50.00", "2", "50.00", "0.4500", "0.5000"] in printed
    start, end = printed.index(["flag", "a", "b"]), printed.index([], printed.index(["flag", "a", "b"]))
    assert printed[start + 1 : end] == [["lr", "0.01", "0.05"]]
    assert ["dog", "40.00", "50.00"] in printed
    assert not any("note:" in line for line in printed)


def test_a_checkpoint_names_its_run_and_none_counts_twice(two, capsys):
    (two[1] / "model_best.pth.tar").touch()
    assert compare.main([str(two[0]), str(two[1]), str(two[1] / "model_best.pth.tar")]) == 0
    assert ["flag", "a", "b"] in lines(capsys.readouterr().out)


def test_a_name_is_what_differs_of_the_path(tmp_path, capsys):
    runs = [make_run(tmp_path / name / "experiment_0") for name in ("one/small", "two/small")]
    assert compare.main(list(map(str, runs))) == 0
    assert ["class", "one", "two"] in lines(capsys.readouterr().out)


def test_other_data_and_classes_are_said(tmp_path, capsys):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", dataset="folder", classes=("dog", "cow", "hen"))]
    assert compare.main(list(map(str, runs))) == 0
    printed = capsys.readouterr().out
    assert "different data sets (a: demo, b: folder)" in printed and "different classes (a: 2, b: 3)" in printed
    assert ["dog", "40.00", "40.00"] in lines(printed) and "cow" not in printed


def test_the_page_holds_everything_in_one_file(two, tmp_path, capsys):
    make_run(tmp_path / "runs/<i>")
    assert compare.main([*map(str, two), str(tmp_path / "runs/<i>"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/compare.html").read_text()
    assert "<i>" not in page and "&lt;i&gt;" in page and "<td>0.05</td>" in page
    assert re.findall(r'(?:src|href)="([^"]{10})', page) == ["data:image"]
    assert (tmp_path / "out/curves.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "out/compare.html") in capsys.readouterr().out


def test_logs_of_older_versions_and_half_a_line(two, capsys):
    row = {"epoch": 1, "step": 10, "train_loss": 1.0, "val_miou": None, "val_pixel_accuracy": None, "lr": 0.01}
    (two[0] / "log.jsonl").write_text(json.dumps(row) + '\n{"epoch": 2, "st')
    (two[1] / "log.jsonl").unlink()
    assert compare.main([*map(str, two), "--out", str(two[0].parent / "out")]) == 0
    printed = lines(capsys.readouterr().out)
    assert ["a", "1", "10", "-", "-", "-", "-", "1.0000"] in printed and ["b", *"-------"] in printed


def test_flags_of_many_runs_stay_readable(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    runs = [make_run(tmp_path / f"a_run_with_a_long_name_{n}", lr=0.01 * n) for n in range(1, 5)]
    assert compare.main(list(map(str, runs))) == 0
    printed = capsys.readouterr().out.split("Flags that differ")[1]
    assert max(map(len, printed.splitlines())) <= 80 and "a_run_with_a_long_name_4: 0.04" in printed


def no_run(folder: Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def broken_config(folder: Path) -> str:
    (make_run(folder / "c") / "config.json").write_text("{")
    return str(folder / "c")


def no_object(folder: Path) -> str:
    (make_run(folder / "d") / "log.jsonl").write_text("[1]\n")
    return str(folder / "d")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda folder: str(folder / "nowhere"), "nowhere: no such run"),
        (no_run, "holds no config.json"),
        (broken_config, "config.json is not valid JSON"),
        (no_object, "instead of an object"),
        (lambda folder: str(folder / "runs/a"), "alone: give two runs or more"),
    ],
)
def test_bad_input_is_one_line(make, text, two, tmp_path, capsys):
    assert compare.main([str(two[0]), make(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_out_is_not_the_folder_of_a_run(two, capsys):
    assert compare.main([*map(str, two), "--out", str(two[0])]) == 2
    assert "give another --out" in capsys.readouterr().err
    assert not (two[0] / "curves.png").exists()
