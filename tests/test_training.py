"""train.py and evaluate.py as users call them, on small data: end to end, resumed, fine-tuned, refused."""

import json
import re
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import write_voc

import evaluate
import train
from engine import Trainer
from modeling import build_model
from utils.run.checkpoint import read_checkpoint

# A small network on small crops: seconds, not minutes
FAST = ["--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33",
        "--batch-size", "2", "--workers", "0", "--lr", "0.01", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def start(tmp_path, folder_root):
    """Run train.py on own data of six training images (3 steps an epoch). Gives exit status and run folder."""

    def run(
        *more: str, dataset=("--dataset", "folder", "--data-root", str(folder_root)), runs="run", name="x"
    ) -> tuple:
        flags = [*FAST, *dataset, "--run-dir", str(tmp_path / runs), "--checkname", name, *more]
        status = train.main(flags)
        folders = sorted((tmp_path / runs / dataset[1] / name).glob("experiment_*"))
        return status, folders[-1] if folders else None

    return run


def log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(one: dict, two: dict) -> bool:
    return all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())


def same_momentum(one: dict, two: dict) -> bool:
    buffers = [[state["momentum_buffer"] for state in c["optimizer"]["state"].values()] for c in (one, two)]
    return all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))


def test_a_run_writes_what_the_design_names(start, folder_root):
    status, folder = start("--epochs", "2")
    assert status == 0
    rows = log(folder)
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert {"epoch", "train_loss", "val_miou", "lr", "seconds"} <= set(row)
        assert np.isfinite(row["train_loss"]) and 0 <= row["val_miou"] <= 1
    config = json.loads((folder / "config.json").read_text())
    assert config["backbone"] == "mobilenet" and config["crop_size"] == [33, 33] and config["epochs"] == 2
    assert config["dataset_sizes"] == {"train": 6, "val": 2} and config["versions"]["torch"] == torch.__version__
    checkpoint = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    assert {"state_dict", "optimizer", "epoch", "step", "best_pred", "config", "classes"} <= set(checkpoint)
    assert checkpoint["epoch"] == 2 and checkpoint["step"] == 6 and checkpoint["classes"] == ["ground", "wall", "sky"]
    assert checkpoint["best_pred"] == max(row["val_miou"] for row in rows)
    assert json.loads((folder / "metrics.json").read_text())["miou"] == rows[-1]["val_miou"]
    assert Image.open(folder / "sheet.png").width > 900
    assert list(folder.glob("events.out.tfevents.*")) and (folder / "model_best.pth.tar").is_file()


def test_evaluate_gives_the_validation_score_exactly(start, tmp_path, folder_root, capsys):
    _, folder = start("--epochs", "1")
    row = log(folder)[-1]
    capsys.readouterr()
    out = tmp_path / "scores"
    # The dataset and its folder are known from the checkpoint
    assert evaluate.main(["--checkpoint", str(folder / "checkpoint.pth.tar"), "--out", str(out), "--workers", "0"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["miou"] == row["val_miou"] and metrics["protocol"] == "whole" and metrics["out_stride"] == 16
    assert list(metrics["per_class"]) == ["ground", "wall", "sky"]
    assert set(metrics["per_class"]["wall"]) == {"iou", "accuracy", "pixels"}
    assert "mIoU" in capsys.readouterr().out and (out / "sheet.png").is_file()


def test_evaluate_equals_a_forward_by_hand(start, folder_root, tmp_path):
    """Native images, no resize, padded with the mean; IoU by plain NumPy."""
    _, folder = start("--max-steps", "1")
    state = read_checkpoint(folder / "checkpoint.pth.tar")
    model = build_model("mobilenet", 3, head="lite").eval()
    model.load_state_dict(state["state_dict"])
    intersection, union = np.zeros(3), np.zeros(3)
    for key in ("v.0", "v.1"):
        pixels = np.asarray(Image.open(folder_root / f"JPEGImages/{key}.jpg")) / 255
        image = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        padded = np.zeros((49, 49, 3))  # 36x48 to k*16+1
        padded[:36, :48] = image
        with torch.no_grad():
            logits = model(torch.tensor(padded.transpose(2, 0, 1), dtype=torch.float32)[None])[0, :, :36, :48]
        prediction = logits.argmax(0).numpy()
        label = np.asarray(Image.open(folder_root / f"SegmentationClass/{key}.png"))
        for number in range(3):
            truth, predicted = label == number, (prediction == number) & (label != 255)
            intersection[number] += (truth & predicted).sum()
            union[number] += (truth | predicted).sum()
    expected = np.mean(intersection[union > 0] / union[union > 0])
    assert log(folder)[-1]["val_miou"] == pytest.approx(expected, abs=1e-3)


def test_a_checkpoint_of_before_there_were_these_keys_is_taken_up(start):
    start("--epochs", "2", "--max-steps", "1")
    _, folder = start("--epochs", "2", "--resume", "auto", "--max-steps", "3")
    state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    for name in ("counted_step", "has_best", "broken", "epsilon", "padding"):
        del state[name]
    torch.save(state, folder / "checkpoint.pth.tar")
    status, folder = start("--epochs", "2", "--resume", "auto")
    assert status == 0 and len(log(folder)) == 2


AVERAGED = ["--ema", "0.9", "--lr-scheduler", "cos"]


@pytest.mark.parametrize(
    ("stop", "extra"),
    [(3, []), (4, AVERAGED), *[pytest.param(*case, marks=pytest.mark.slow) for case in
                               ((1, []), (4, []), (1, AVERAGED), (3, AVERAGED))]],
)  # fmt: skip
def test_a_resumed_run_equals_one_that_never_stopped(start, stop, extra):
    """Stopped in the middle and at the end of an epoch; bit for bit."""
    _, whole = start("--epochs", "3", *extra, runs="whole")
    start("--epochs", "3", "--max-steps", str(stop), *extra, runs="parts")
    status, parts = start("--resume", "auto", runs="parts")
    assert status == 0 and parts.name == "experiment_0"
    one, two = (read_checkpoint(folder / "checkpoint.pth.tar") for folder in (whole, parts))
    assert one["step"] == two["step"] == 9
    assert same_weights(one, two) and same_momentum(one, two)
    if extra:
        assert all(torch.equal(v, two["ema_state_dict"][k]) for k, v in one["ema_state_dict"].items())
    losses = [[(row["epoch"], row["train_loss"]) for row in log(folder)] for folder in (whole, parts)]
    assert losses[0] == losses[1]
    assert [row["val_miou"] for row in log(whole)] == [row["val_miou"] for row in log(parts)]


def test_resuming_a_finished_run_changes_nothing(start):
    _, folder = start("--epochs", "1")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    for resume in ("auto", str(folder / "checkpoint.pth.tar")):
        status, _ = start("--resume", resume)
        assert status == 0
        assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


def test_max_steps_counts_over_resumes_and_more_epochs_go_on(start):
    start("--epochs", "2", "--max-steps", "2", "--no-val")
    _, folder = start("--resume", "auto", "--max-steps", "4")
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 4
    _, folder = start("--resume", "auto", "--epochs", "3")
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 9
    assert [row["epoch"] for row in log(folder)] == [1, 2, 3]


def test_save_every_writes_between_epochs(start, monkeypatch):
    steps = []
    original = Trainer.save
    monkeypatch.setattr(
        Trainer, "save", lambda self, path: steps.append((path.name[0], self.step)) or original(self, path)
    )
    start("--epochs", "2", "--save-every", "2", "--no-val")
    assert steps == [("c", 2), ("c", 3), ("c", 4), ("c", 6)]


def test_resume_auto_starts_afresh_where_there_is_nothing(start, capsys):
    status, folder = start("--resume", "auto", "--epochs", "1", "--no-val")
    assert status == 0 and folder.name == "experiment_0"
    assert "fresh start" in capsys.readouterr().out
    assert log(folder)[0]["val_miou"] is None


def test_each_start_gets_its_own_folder(start):
    for number in range(2):
        _, folder = start("--max-steps", "1", "--no-val")
        assert folder.name == f"experiment_{number}"


def last_line(capsys) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backbone", "drn22"], "--backbone drn22 contradicts the checkpoint's mobilenet"),
        (["--batch-size", "3"], "--batch-size 3 contradicts the checkpoint's 2"),
        (["--head", "standard"], "--head standard contradicts the checkpoint's lite"),
        (["--seed", "5"], "--seed 5 contradicts"),
    ],
)
def test_contradicting_flags_are_refused(start, capsys, flags, said):
    _, folder = start("--max-steps", "1", "--no-val")
    before = (folder / "checkpoint.pth.tar").read_bytes()
    status, _ = start("--resume", str(folder / "checkpoint.pth.tar"), *flags)
    assert status == 2
    line = last_line(capsys)
    assert said in line and "--ft" in line
    assert (folder / "checkpoint.pth.tar").read_bytes() == before


def test_changed_schedule_flags_are_taken_and_printed(start, capsys):
    start("--epochs", "1", "--no-val")
    status, folder = start("--resume", "auto", "--epochs", "2", "--weight-decay", "0.001", "--no-val")
    out = capsys.readouterr().out
    assert status == 0 and "--epochs 2 instead of 1" in out and "--weight-decay 0.001 instead of" in out
    state = read_checkpoint(folder / "checkpoint.pth.tar")
    assert {group["weight_decay"] for group in state["optimizer"]["param_groups"]} == {0.001, 0.0}


def test_fine_tuning_takes_the_weights_and_leaves_the_head(start, tmp_path, capsys):
    _, first = start("--epochs", "1")
    other = write_voc(tmp_path / "other", {"train": list("abcd"), "val": ["e"]}, num_classes=5)
    (other / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    capsys.readouterr()
    dataset = ("--dataset", "folder", "--data-root", str(other))
    # Without --ft: both class counts, and what to do
    status, _ = start("--resume", str(first / "checkpoint.pth.tar"), dataset=dataset, name="ft")
    line = last_line(capsys)
    assert status == 2 and "has 3 classes" in line and "the data 5" in line and "--ft" in line
    # The network comes from the checkpoint, without being named
    flags = ["--resume", str(first / "checkpoint.pth.tar"), "--ft", "--epochs", "1", "--lr", "1e-12", "--freeze-bn"]
    flags += ["--crop-size", "33", "--batch-size", "2", "--workers", "0", "--run-dir", str(tmp_path / "run")]
    status = train.main([*flags, *dataset, "--checkname", "ft"])
    folder = tmp_path / "run/folder/ft/experiment_0"
    out = capsys.readouterr().out
    assert status == 0 and folder != first and "decoder.classifier.weight" in out
    before, after = (read_checkpoint(path / "checkpoint.pth.tar") for path in (first, folder))
    assert after["config"]["head"] == "lite"
    assert after["epoch"] == 1 and after["state_dict"]["decoder.classifier.weight"].shape[0] == 5
    assert after["best_pred"] == log(folder)[0]["val_miou"]  # the best score starts afresh
    torch.testing.assert_close(
        after["state_dict"]["backbone.features.5.conv.0.0.weight"],
        before["state_dict"]["backbone.features.5.conv.0.0.weight"],
    )


def test_frozen_batch_norm_keeps_its_statistics(start):
    _, folder = start("--epochs", "1", "--freeze-bn", "--no-val", "--batch-size", "1")
    state = read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"]
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means and all((value == 0).all() for value in means)


def test_parts_give_the_gradient_of_the_whole(start):
    """With batch norm frozen and no dropout, a batch in two parts makes the same step."""
    flags = ["--max-steps", "2", "--freeze-bn", "--dropout", "0", "--no-val", "--use-balanced-weights"]
    _, whole = start(*flags, runs="whole")
    _, parts = start(*flags, "--accumulate", "2", runs="parts")
    one, two = (read_checkpoint(folder / "checkpoint.pth.tar")["state_dict"] for folder in (whole, parts))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert log(whole)[0]["train_loss"] == pytest.approx(log(parts)[0]["train_loss"], rel=1e-5)


def test_workers_do_not_matter(start):
    _, one = start("--max-steps", "4", "--no-val", "--workers", "0", runs="none")
    _, two = start("--max-steps", "4", "--no-val", "--workers", "2", runs="two")
    assert same_weights(*(read_checkpoint(folder / "checkpoint.pth.tar") for folder in (one, two)))


@pytest.mark.parametrize(
    "flags",
    [
        ["--amp", "bf16"], ["--loss-type", "focal"], ["--loss-type", "ohem"], ["--use-balanced-weights"],
        ["--lr-scheduler", "step", "--lr-step", "1", "--warmup-steps", "2"], ["--nesterov"], ["--no-channels-last"],
        ["--ema", "0.5"], ["--deterministic"], ["--head", "standard"], ["--base-size", "40"],
        ["--crop-size", "33", "49"], ["--bn-momentum", "0.01"], ["--eval-interval", "2"], ["--out-stride", "8"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_every_option_trains_and_scores(start, flags):
    status, folder = start("--epochs", "2", *flags)
    assert status == 0
    rows = log(folder)
    assert all(np.isfinite(row["train_loss"]) for row in rows) and rows[-1]["val_miou"] is not None


def test_half_precision_scales_its_loss(start):
    status, folder = start("--max-steps", "3", "--amp", "fp16", "--no-val")
    state = read_checkpoint(folder / "checkpoint.pth.tar")
    assert status == 0 and state["scaler"]["scale"] > 0
    assert all(value.isfinite().all() for value in state["state_dict"].values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs g++")
def test_compiled_training_learns_what_plain_training_does(start):
    # Compiled dropout draws other numbers; batch norm over two pooled values blows rounding up
    flags = ["--max-steps", "2", "--no-val", "--dropout", "0", "--freeze-bn"]
    _, plain = start(*flags, runs="plain")
    status, compiled = start(*flags, "--compile", runs="compiled")
    assert status == 0
    assert log(compiled)[0]["train_loss"] == pytest.approx(log(plain)[0]["train_loss"], rel=1e-3)


def test_training_lowers_the_loss(start):
    _, folder = start("--epochs", "12", "--lr", "0.05", "--no-val")
    losses = [row["train_loss"] for row in log(folder)]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_the_averaged_weights_are_scored(start, tmp_path):
    _, folder = start("--epochs", "2", "--ema", "0.99", "--lr", "0.1")
    state = read_checkpoint(folder / "checkpoint.pth.tar")
    assert not torch.equal(
        state["ema_state_dict"]["aspp.project.0.weight"], state["state_dict"]["aspp.project.0.weight"]
    )
    evaluate.main(["--checkpoint", str(folder / "checkpoint.pth.tar"), "--out", str(tmp_path), "--workers", "0"])
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] == log(folder)[-1]["val_miou"]


def test_the_other_data_sets_train_score_and_resume(start, voc_root, sbd_root, cityscapes_root, coco_root):
    sbd = ["--use-sbd", "--sbd-root", str(sbd_root)]
    for name, root, extra in [
        ("pascal", voc_root, sbd), ("pascal", voc_root, []),
        ("cityscapes", cityscapes_root, []), ("coco", coco_root, []),
    ]:  # fmt: skip
        dataset = ("--dataset", name, "--data-root", str(root))
        status, folder = start("--max-steps", "1", *extra, dataset=dataset, name=f"x{len(extra)}")
        assert status == 0 and read_checkpoint(folder / "checkpoint.pth.tar")["step"] == 1
        checkpoint = str(folder / "checkpoint.pth.tar")
        assert start("--resume", checkpoint, "--max-steps", "2", dataset=dataset, name=f"x{len(extra)}")[0] == 0
        assert read_checkpoint(checkpoint)["step"] == 2
        assert (
            evaluate.main(["--checkpoint", checkpoint, "--dataset", name, "--data-root", str(root), "--workers", "0"])
            == 0
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_after_the_step_with_a_checkpoint(start, number, monkeypatch):
    _, whole = start("--epochs", "2", "--no-val", runs="whole")
    original = Trainer.after_step

    def interrupt(self, loss, speed):
        original(self, loss, speed)
        if self.step == 1:
            signal.raise_signal(number)

    monkeypatch.setattr(Trainer, "after_step", interrupt)
    status, folder = start("--epochs", "2", "--no-val", runs="parts")
    assert status == 128 + number
    assert read_checkpoint(folder / "checkpoint.pth.tar")["step"] in (1, 2)
    monkeypatch.setattr(Trainer, "after_step", original)
    status, folder = start("--resume", "auto", "--no-val", runs="parts")
    assert status == 0 and threading.main_thread().is_alive()
    assert same_weights(*(read_checkpoint(f / "checkpoint.pth.tar") for f in (whole, folder)))


def test_a_non_finite_loss_stops_with_the_place(start, monkeypatch, capsys):
    def explode(self, part, pixels, *, is_last):
        return torch.tensor([float("nan"), 1.0])

    monkeypatch.setattr(Trainer, "backward", explode)
    assert start("--epochs", "1", "--no-val")[0] == 1
    assert re.search(r"loss is nan at epoch 1, step 1, samples t\.\d, t\.\d: nothing was learnt", last_line(capsys))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batch-size", "7"], "6 training images are fewer than --batch-size 7"),
        (["--batch-size", "1"], "1 image a process and part"),
        (["--accumulate", "2"], "1 image a process and part"),
        (["--batch-size", "3", "--accumulate", "2"], "cannot be dealt"),
        (["--crop-size", "1", "2", "3"], "--crop-size 1 2 3: give N, or H W"),
        (["--sync-bn"], "--sync-bn works on GPUs alone"),
        (["--ft"], "--resume FILE"),
        (["--ft", "--resume", "auto"], "--resume FILE"),
        (["--resume", "/nowhere/c.pth"], "no file /nowhere/c.pth"),
        (["--weights-from", "unheard"], "--weights-from unheard: unknown; choose one of mobilenetv2_dm05_coco"),
        (["--weights-from", "xception65_coco_voc_trainaug", "--resume", "c.pth"], "leave out --resume FILE"),
        (["--width", "0.5", "--backbone", "drn22"], "defined for mobilenet alone"),
        (["--out-stride", "32", "--backbone", "drn"], "drn has no output stride 32"),
        (["--multi-grid"], "multi-grid is defined for ResNet alone"),
        (["--ohem-fraction", "0", "--loss-type", "ohem"], "--ohem-fraction 0"),
        pytest.param(["--device", "cuda"], "--device cuda", marks=pytest.mark.skipif(
            torch.cuda.is_available(), reason="this machine has CUDA")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_before_a_run_folder_is_made(start, capsys, flags, said):
    status, folder = start("--epochs", "1", *flags)
    assert status == 2 and folder is None
    assert said in last_line(capsys)


@pytest.mark.parametrize(
    "flags",
    [["--lr", "-1"], ["--lr", "fast"], ["--dropout", "2"], ["--backbone", "vgg"], ["--dataset", "ade"],
     ["--epochs", "0"], ["--lr-scheduler", "exp"], ["--loss-type", "dice"], ["--workers", "-1"], ["--use-sbd", "True"],
     ["--sync-bn", "False"]],
    ids=" ".join,
)  # fmt: skip
def test_bad_values_end_with_status_2(flags, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(flags)
    assert stop.value.code == 2
    assert flags[-1] in last_line(capsys)


def test_help_shows_the_defaults_of_each_data_set(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for expected in ("pascal 0.007", "cityscapes 769", "pascal 46", "demo mobilenet", "(default: poly)"):
        assert expected in text


def test_a_bad_picture_stops_with_its_path(start, folder_root, capsys):
    for path in (folder_root / "JPEGImages").glob("t*"):
        path.write_bytes(path.read_bytes()[:200])
    for workers in ("0", "1"):
        status, _ = start("--epochs", "1", "--workers", workers)
        line = last_line(capsys)
        assert status == 2 and line.startswith("error: ") and "cannot be read as an image" in line


def test_evaluate_refuses_other_class_counts(start, voc_root, capsys):
    _, folder = start("--max-steps", "1", "--no-val")
    status = evaluate.main(
        ["--checkpoint", str(folder / "checkpoint.pth.tar"), "--dataset", "pascal", "--data-root", str(voc_root)]
    )
    assert status == 2 and "knows 3 classes, pascal has 21" in last_line(capsys)
