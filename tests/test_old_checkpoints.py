"""Checkpoints of the version before `Architecture` evaluate, predict, resume and start new runs."""

from pathlib import Path

import pytest
import torch
from running import in_process, log

import evaluate
from modeling.pretrained.loaded_model import load_model
from utils.run.checkpoint import read_checkpoint

# The whole config of a checkpoint as that version wrote it for the flags of `in_process`
CONFIG = {
    "backbone": "mobilenet", "out_stride": 16, "head": "lite", "multi_grid": False, "width": 0.25, "wide_tap": False,
    "dropout": 0.1, "backbone_weights": "none", "weights_from": None, "partial_weights": False, "dataset": "folder",
    "data_root": None, "use_sbd": False, "sbd_root": None, "skip_broken": False, "base_size": None,
    "crop_size": [33, 33], "epochs": 2, "batch_size": 2, "accumulate": 1, "lr": 0.01, "head_lr_factor": 10.0,
    "lr_scheduler": "poly", "lr_step": 30, "warmup_steps": 0, "momentum": 0.9, "nesterov": False, "weight_decay": 4e-05,
    "loss_type": "ce", "focal_gamma": 2.0, "ohem_fraction": 0.25, "use_balanced_weights": False, "freeze_bn": False,
    "bn_momentum": 0.1, "sync_bn": None, "ema": 0.0, "seed": 1, "device": "cpu", "workers": 0, "amp": "off",
    "channels_last": True, "compile": False, "deterministic": False, "run_dir": "run", "checkname": "x", "resume": None,
    "ft": False, "max_steps": 2, "save_every": None, "eval_interval": 1, "no_val": False,
    "versions": {"python": "3.11.7", "torch": "2.14.1", "torchvision": "0.29.1", "numpy": "2.4.6", "pillow": "13.0.0"},
    "commit": "3e8e478b6c5d956a5ba3b53f158d6215aa5ead9f", "dataset_sizes": {"train": 6, "val": 2},
}  # fmt: skip
KEYS = [
    "state_dict", "optimizer", "scaler", "epoch", "step", "counted_step", "best_pred", "has_best", "broken",
    "epoch_losses", "epoch_seconds", "classes", "palette", "mean", "std", "epsilon", "padding", "config",
]  # fmt: skip
GROUPS = ["backbone", "backbone, no decay", "head", "head, no decay"]
RUN = ("--width", "0.25", "--epochs", "2")


@pytest.fixture
def data(folder_root) -> list[str]:
    return ["--dataset", "folder", "--data-root", str(folder_root)]


@pytest.fixture
def old_checkpoint(data, tmp_path) -> Path:
    """The checkpoint of a run that was stopped after two of six steps, with the entries of that version alone."""
    _, folder = in_process(data, tmp_path / "run", *RUN, "--max-steps", "2")
    path = folder / "checkpoint.pth.tar"
    state = {key: value for key, value in read_checkpoint(path).items() if key in KEYS}
    state["config"] = CONFIG | {"data_root": data[3], "run_dir": str(tmp_path / "run")}
    torch.save(state, path)
    return path


def test_a_checkpoint_has_at_least_the_entries_of_that_version(old_checkpoint):
    state = read_checkpoint(old_checkpoint)
    assert set(state) == set(KEYS)
    assert [group["name"] for group in state["optimizer"]["param_groups"]] == GROUPS


def test_an_old_checkpoint_resumes_to_the_same_bits(old_checkpoint, data, tmp_path):
    status, folder = in_process(data, tmp_path / "run", "--resume", "auto")
    assert status == 0 and folder == old_checkpoint.parent
    _, whole = in_process(data, tmp_path / "whole", *RUN)
    ours, expected = (read_checkpoint(path / "checkpoint.pth.tar") for path in (folder, whole))
    assert ours["step"] == expected["step"] == 6
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in expected["state_dict"].items())
    momentum, expected = (state["optimizer"]["state"] for state in (ours, expected))
    assert all(torch.equal(momentum[n]["momentum_buffer"], value["momentum_buffer"]) for n, value in expected.items())
    rows = [
        [(row["epoch"], row["step"], row["train_loss"], row["val_miou"]) for row in log(path)]
        for path in (folder, whole)
    ]
    assert [row[:2] for row in rows[0]] == [(1, 3), (2, 6)] and rows[0] == rows[1]


def test_an_old_checkpoint_without_later_flags_resumes(old_checkpoint, data, tmp_path):
    """Flags that its version did not have get their defaults."""
    state = read_checkpoint(old_checkpoint)
    for name in ("wide_tap", "multi_grid", "dropout", "weights_from", "partial_weights", "skip_broken", "accumulate"):
        del state["config"][name]
    torch.save(state, old_checkpoint)
    status, folder = in_process(data, tmp_path / "run", "--resume", str(old_checkpoint), "--max-steps", "3")
    assert status == 0 and read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 3


def test_an_old_checkpoint_evaluates(old_checkpoint, capsys):
    assert evaluate.main(["--checkpoint", str(old_checkpoint), "--workers", "0"]) == 0
    out = capsys.readouterr().out
    assert f"mIoU {100 * log(old_checkpoint.parent)[-1]['val_miou']:22.2f}" in out and "loaded" not in out
    loaded = load_model(old_checkpoint)
    assert loaded.classes == ("ground", "wall", "sky") and loaded.config["crop_size"] == [33, 33]


def test_an_old_checkpoint_gives_a_new_run_its_network_and_weights(old_checkpoint, data, tmp_path):
    flags = ["--resume", str(old_checkpoint), "--ft", "--max-steps", "1", "--no-val", "--lr", "1e-9"]
    status, folder = in_process(data, tmp_path / "other", *flags)
    ours, old = (read_checkpoint(path) for path in (folder / "checkpoint.pth.tar", old_checkpoint))
    assert status == 0 and ours["config"]["width"] == 0.25 and ours["step"] == 1
    name = "backbone.features.0.0.weight"
    torch.testing.assert_close(ours["state_dict"][name], old["state_dict"][name], rtol=0, atol=1e-6)
