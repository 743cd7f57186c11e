"""Validation loss, curves.png, TensorBoard's hyperparameters, and the time that is left."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tests.running import in_process, log
from tests.toy import toy_trainer
from utils.progress import time_left, validations_left
from utils.run.folder import RunFolder
from utils.run.recorder import Recorder
from utils.run.tensorboard import read_records
from utils.scoring import cross_entropy
from utils.scoring.cross_entropy import MeanCrossEntropy
from utils.scoring.curves import plot_curves


def images(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(logits, label) of different sizes, higher than the rows that are computed at once."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        logits = 5 * torch.randn(1, 3, 150 + number, 7, generator=generator)
        label = torch.randint(0, 4, logits[:, 0].shape, generator=generator)
        made.append((logits, label.where(label < 3, 255).to(torch.uint8)))
    return made


def test_the_loss_equals_a_sum_over_pixels():
    loss, total, count = MeanCrossEntropy(), 0.0, 0
    for logits, label in images(3):
        loss.update(logits, label)
        for position in zip(*np.nonzero(label.numpy() != 255), strict=True):
            values = logits[position[0], :, position[1], position[2]].double().exp()
            total, count = total - math.log(values[int(label[position])] / values.sum()), count + 1
    assert loss.mean() == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("num_processes", [2, 3])
def test_the_loss_has_the_same_bits_for_every_number_of_processes(num_processes, monkeypatch):
    made, alone, shares = images(7), MeanCrossEntropy(), [MeanCrossEntropy() for _ in range(num_processes)]
    for number, image in enumerate(made):
        alone.update(*image)
        shares[number % num_processes].update(*image)
    expected, sums = alone.mean(), []
    monkeypatch.setattr(cross_entropy, "gather_flat", lambda values: sums.extend(values) or sums)
    assert [share.mean() for share in shares][-1] == expected


def test_a_loss_that_is_no_number_is_null():
    loss, (logits, label) = MeanCrossEntropy(), images(1)[0]
    assert loss.mean() is None
    loss.update(logits, torch.full_like(label, 255))
    assert loss.mean() is None
    loss.update(logits * math.inf, label)
    assert loss.mean() is None


def test_the_engine_logs_loss_and_iou_of_a_validation():
    trainer = toy_trainer(before_image={})
    trainer.fit()
    row = trainer.recorder.epochs[-1]
    assert row["val_loss"] == trainer.scores["loss"] > 0 and trainer.validation_seconds > 0
    assert row["val_iou"] == {name: each["iou"] for name, each in trainer.scores["per_class"].items()}
    trainer = toy_trainer()
    trainer.fit()
    assert trainer.recorder.epochs[-1]["val_loss"] is trainer.recorder.epochs[-1]["val_iou"] is None


def row(epoch: int, **more: object) -> dict:
    scores = {"val_loss": 0.8 / epoch, "val_miou": 0.1 * epoch, "val_pixel_accuracy": 0.5, "val_iou": {"a": 0.5}}
    return {"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, "lr": 0.01, "seconds": 1.0} | scores | more


def colored_pixels(png: bytes) -> int:
    """Of lines in a color, on a figure of otherwise gray pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=2) > 60).sum())


def test_rows_of_older_versions_are_drawn_too():
    new = [row(epoch) for epoch in (1, 2, 3)]
    old = [{key: value for key, value in each.items() if key not in ("val_loss", "val_iou")} for each in new]
    assert colored_pixels(plot_curves({"": new})) > colored_pixels(plot_curves({"": old})) > 0
    assert colored_pixels(plot_curves({"": []})) == 0


@pytest.fixture
def recorder(tmp_path) -> Recorder:
    config = {"lr": 0.01, "dataset": "demo", "lr_step": [30, 60], "versions": {"torch": "2"}, "resume": None}
    made = Recorder(RunFolder(tmp_path), classes=("a",), palette=[(0, 0, 0)], extra={"config": config})
    made.open(0, 0, 0)
    return made


def test_curves_follow_the_log_and_an_error_ends_no_run(recorder, monkeypatch, capsys):
    recorder.log_epoch(row(1), is_best=True, num_epochs=3)
    recorder.wait()
    first = recorder.folder.curves.read_bytes()
    recorder.log_epoch(row(2), is_best=True, num_epochs=3)
    recorder.wait()
    second = recorder.folder.curves.read_bytes()
    assert second != first
    recorder.log_epoch(row(3, val_iou=None, val_loss=None, val_miou=None), is_best=False, num_epochs=3)
    recorder.wait()
    assert recorder.folder.curves.read_bytes() == second  # no validation, no drawing
    monkeypatch.setattr("utils.run.recorder.plot_curves", lambda *_, **__: 1 / 0)
    recorder.log_epoch(row(4), is_best=True, num_epochs=4)
    assert "curves.png could not be drawn (ZeroDivisionError" in capsys.readouterr().out
    recorder.wait()
    continued = Recorder(recorder.folder, classes=("a",), palette=[(0, 0, 0)], extra={})
    continued.open(2, 20, 20)
    assert [each["epoch"] for each in continued.rows] == [1, 2]


def events(recorder: Recorder) -> list:
    recorder.wait()
    paths = sorted(recorder.folder.path.glob("events.*"))
    found = [Event.FromString(record[12:-4]) for path in paths for record in read_records(path.read_bytes())]
    return [value for event in found for value in event.summary.value]


def test_tensorboard_has_scores_and_hyperparameters_also_after_a_resume(recorder):
    recorder.log_epoch(row(1), is_best=True, num_epochs=3)
    recorder.log_epoch(row(2, val_loss=0.25), is_best=True, num_epochs=3)
    values = events(recorder)
    assert [v.simple_value for v in values if v.tag == "val/loss"] == pytest.approx([0.8, 0.25])
    assert [v.simple_value for v in values if v.tag == "val/iou/a"] == [0.5, 0.5]
    Recorder(recorder.folder, classes=("a",), palette=[(0, 0, 0)], extra=recorder.extra).open(1, 10, 10)
    values = events(recorder)
    assert len([v for v in values if v.tag == "val/loss"]) == 1
    starts = [v for v in values if v.tag == "_hparams_/session_start_info"]
    content = HParamsPluginData.FromString(starts[0].metadata.plugin_data.content).session_start_info.hparams
    assert len(starts) == 1 and set(content) == {"lr", "dataset", "lr_step"}
    assert content["lr"].number_value == 0.01 and content["lr_step"].string_value == "[30, 60]"


def test_a_run_writes_curves_and_its_log(tmp_path):
    status, folder = in_process(["--dataset", "demo"], tmp_path, "--max-steps", "1")
    assert status == 0
    last = log(folder)[-1]
    assert last["val_loss"] > 0 and len(last["val_iou"]) == 8
    assert colored_pixels((folder / "curves.png").read_bytes()) > 100


@pytest.mark.parametrize(
    ("done", "epochs", "interval", "left"), [(0, 10, 1, 10), (9, 10, 1, 1), (0, 10, 3, 4), (8, 10, 3, 2), (9, 10, 3, 1),
    (10, 10, 3, 0), (0, 2, 5, 1)]
)  # fmt: skip
def test_validations_left(done, epochs, interval, left):
    due = [epoch for epoch in range(done + 1, epochs + 1) if epoch % interval == 0 or epoch == epochs]
    assert validations_left(done, epochs, interval) == left == len(due)


def test_time_left():
    assert time_left(100, 2, step_seconds=0.1, validation_seconds=5) == "20 s left"
    assert time_left(600, 2, step_seconds=1, validation_seconds=60) == "12 min left"
    assert time_left(600, 2, step_seconds=1, validation_seconds=None) == "10 min and 2 validations left"
    assert time_left(600, 0, step_seconds=1, validation_seconds=None) == "10 min left"
    assert time_left(30_000, 0, step_seconds=1, validation_seconds=None) == "8 h 20 min left"
    assert time_left(300_000, 0, step_seconds=1, validation_seconds=None) == "3.5 days left"


@pytest.mark.parametrize("first", [0, 3])
def test_the_last_step_has_only_its_validation_left(first, monkeypatch):
    """Also of a resumed run and with --max-steps, which ends in the second of three epochs."""
    texts, state = [], None
    monkeypatch.setattr("engine.time_left", lambda steps, validations, **_: texts.append((steps, validations)) or "")
    if first:
        before = toy_trainer(before_image={}, epochs=1)
        before.fit()
        state, texts[:] = before.state_dict(), []
    toy_trainer(before_image={}, epochs=3, max_steps=5, state=state).fit()
    assert texts == [(4, 2), (3, 2), (2, 2), (1, 1), (0, 1)][first:]
