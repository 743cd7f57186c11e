"""Repeating a run by its config.json, finding the run to resume, and shortened flags."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ROOT, in_process, log, said

import train
from config.train_flags import train_parser
from utils.flags import parse
from utils.run.checkpoint import read_checkpoint


def test_the_start_of_a_flag_is_enough_if_no_other_has_it():
    """Old commands with shortened flags keep working, and count as given."""
    args, given = parse(train_parser(), ["--batch", "3", "--check", "x"])
    assert (args.batch_size, args.checkname) == (3, "x") and given == {"batch_size", "checkname"}


@pytest.fixture
def finished(folder_root, tmp_path):
    """(flags of the data, folder of runs, folder of a run of two steps with flags that are no defaults)."""
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    flags = ["--max-steps", "2", "--seed", "5", "--dropout", "0.3", "--lr", "0.0123", "--nesterov"]
    return data, tmp_path / "run", in_process(data, tmp_path / "run", *flags)[1]


def repeat(source, runs, *flags) -> int:
    return train.main(["--config", str(source), "--device", "cpu", "--workers", "0", "--run-dir", str(runs), *flags])


def test_a_run_repeated_by_its_config_has_the_same_bits(finished, tmp_path):
    _, _, first = finished
    for number, source in enumerate((first / "config.json", first)):
        assert repeat(source, tmp_path / f"again{number}") == 0
        (second,) = (tmp_path / f"again{number}").glob("folder/*/experiment_0")
        weights, again = (read_checkpoint(run / "checkpoint.pth.tar")["state_dict"] for run in (first, second))
        assert all(torch.equal(weights[key], again[key]) for key in weights)
        rows = [[row | {"seconds": 0} for row in log(run)] for run in (first, second)]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_the_command_of_a_config_repeats_the_run_in_a_shell(folder_root, tmp_path):
    root = folder_root.rename(tmp_path / 'it\'s "mine" $HOME')
    data = ["--dataset", "folder", "--data-root", str(root)]
    _, first = in_process(data, tmp_path / "run", "--max-steps", "1")
    (line,) = json.loads((first / "config.json").read_text())["commands"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(line, shell=True, check=True, cwd=ROOT, env=os.environ | {"PATH": path})
    one, two = (read_checkpoint(first.with_name(name) / "checkpoint.pth.tar") for name in (first.name, "experiment_1"))
    assert one["config"]["commands"] == two["config"]["commands"] and one["config"]["data_root"] == str(root)


def test_given_flags_win_and_unknown_settings_are_named(finished, tmp_path, capsys):
    config = json.loads((finished[2] / "config.json").read_text()) | {"sharpness": 3}
    (tmp_path / "other.json").write_text(json.dumps(config))
    assert repeat(tmp_path / "other.json", tmp_path / "again", "--seed", "6", "--max-steps", "1") == 0
    (second,) = (tmp_path / "again").glob("folder/*/experiment_0")
    new = json.loads((second / "config.json").read_text())
    assert (new["seed"], new["max_steps"], new["dropout"]) == (6, 1, 0.3)
    out = capsys.readouterr().out
    assert "--seed 6 instead of 5" in out and "this version has no --sharpness" in out


@pytest.mark.parametrize(
    ("content", "expected"),
    [("[1]", "holds no flags of a run"), ("{", "no complete JSON"), ('{"seed": 1}', "holds no flags of a run"),
     ({"epochs": "many"}, "epochs 'many' is not a whole number"),
     ({"backbone": "vgg"}, "backbone is 'vgg', not one of"),
     ({"nesterov": "yes"}, "nesterov is 'yes', not true or false"), ({"crop_size": 33}, "crop_size is 33, not a list"),
     ({"lr": True}, "lr 'True' is not a number"), ({"seed": [1]}, "seed '[1]' is not")],
)  # fmt: skip
def test_a_config_that_cannot_be_taken_is_one_line(content, expected, tmp_path, capsys):
    if isinstance(content, dict):
        content = json.dumps({"dataset": "demo", "backbone": "drn", "commands": []} | content)
    (tmp_path / "config.json").write_text(content)
    assert repeat(tmp_path, tmp_path / "run") == 2
    (line,) = said(capsys.readouterr().err)
    assert str(tmp_path / "config.json") in line and expected in line


def test_resume_takes_a_run_folder_and_names_the_newest_of_several(finished, capsys):
    data, runs, first = finished
    assert in_process(data, runs, "--resume", str(first), "--max-steps", "3")[0] == 0
    assert read_checkpoint(first / "checkpoint.pth.tar")["step"] == 3
    capsys.readouterr()
    for folder in (runs, runs / "folder", first.parent):
        assert in_process(data, runs, "--resume", str(folder))[0] == 2
        assert f"{folder} holds 1 run: name one, such as the newest, --resume {first}" in capsys.readouterr().err


def test_resume_auto_names_a_run_of_the_data_under_another_name(finished, capsys):
    data, runs, first = finished
    capsys.readouterr()
    assert in_process(data, runs, "--resume", "auto", "--checkname", "y", "--max-steps", "1", "--no-val")[0] == 0
    out = capsys.readouterr().out
    assert f"a fresh start; the newest run of folder is {first}" in out and "--checkname x" in out
