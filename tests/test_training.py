"""train.py and evaluate.py on small data: whole runs, resumed, fine-tuned, or stopped by bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from running import error_line, in_process, log
from sample_data import write_voc

import evaluate
import train
from benchmarks.kill_resume import differences
from modeling import build_model
from utils.run.checkpoint import read_checkpoint


@pytest.fixture
def start(tmp_path, folder_root):
    """A function that runs train.py on six training images, 3 steps an epoch: flags -> (exit status, run folder)."""

    def run(*flags: str, data=("--dataset", "folder", "--data-root", str(folder_root)), runs="run") -> tuple:
        return in_process(data, tmp_path / runs, *flags)

    return run


def latest(folder) -> dict:
    return read_checkpoint(folder / "checkpoint.pth.tar")


def test_a_run_writes_its_files(start):
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
    assert (folder / "model_best.safetensors").is_file()


def test_evaluate_gives_the_validation_score_exactly(start, tmp_path, capsys):
    _, folder = start("--epochs", "1")
    row = log(folder)[-1]
    capsys.readouterr()
    out = tmp_path / "scores"
    # Dataset and folder come from the checkpoint
    assert evaluate.main(["--checkpoint", str(folder / "checkpoint.pth.tar"), "--out", str(out), "--workers", "0"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["miou"] == row["val_miou"] and metrics["protocol"] == "whole" and metrics["out_stride"] == 16
    assert list(metrics["per_class"]) == ["ground", "wall", "sky"]
    assert set(metrics["per_class"]["wall"]) == {"iou", "accuracy", "pixels", "dice", "precision", "recall"}
    assert "mIoU" in capsys.readouterr().out and (out / "sheet.png").is_file()


def test_the_validation_score_equals_a_forward_pass_scored_in_numpy(start, folder_root):
    """Each image at its own size, padded with the mean color."""
    _, folder = start("--max-steps", "1")
    model = build_model("mobilenet", 3, head="lite").eval()
    model.load_state_dict(latest(folder)["state_dict"])
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


def test_a_checkpoint_of_an_older_version_without_some_keys_is_resumed(start):
    _, folder = start("--epochs", "2", "--max-steps", "4", "--no-val")
    state = torch.load(folder / "checkpoint.pth.tar", weights_only=True)
    for name in ("counted_step", "has_best", "broken", "epsilon", "padding"):
        del state[name]
    torch.save(state, folder / "checkpoint.pth.tar")
    status, folder = start("--resume", "auto", "--no-val")
    assert status == 0 and [row["step"] for row in log(folder)] == [3, 6]


AVERAGED = "--ema 0.9 --lr-scheduler cos"
OPTIONS = (
    "--ema-half-life 2 --ema-every 2 --sam 0.1 --sam-every 2 --mixup 0.2 --loss-type ce:0.4+dice:1 --clip-grad 1 "
    "--decoupled-weight-decay --class-uniform 0.5 --color-jitter 0.4 --aux-weight 0.4"
)
ADAMW = "--optimizer adamw --ema 0.9"


@pytest.mark.parametrize(
    ("stop", "extra"),
    [(4, OPTIONS), *[pytest.param(*case, marks=pytest.mark.slow) for case in
                     ((1, ""), (3, ""), (4, ""), (3, AVERAGED), (4, AVERAGED), (1, OPTIONS), (4, ADAMW))]],
)  # fmt: skip
def test_a_resumed_run_equals_an_unstopped_one_bit_for_bit(start, stop, extra):
    """Stopped in the middle and at the end of an epoch."""
    _, whole = start("--epochs", "2", *extra.split(), runs="whole")
    start("--epochs", "2", "--max-steps", str(stop), *extra.split(), runs="parts")
    status, parts = start("--resume", "auto", runs="parts")
    assert status == 0 and parts.name == "experiment_0" and latest(parts)["step"] == 6
    one, two = latest(whole), latest(parts)
    # The stop was scored too, and may have given the best score
    others = ["ema_state_dict"] * bool(extra) + ["auxiliary_state_dict"] * ("--aux-weight" in extra)
    for key in ("state_dict", "optimizer", "scaler", *others):
        assert differences(one[key], two[key]) == []
    for row, other in zip(log(whole), log(parts), strict=True):
        assert differences(row, other) == []


def test_resuming_a_finished_run_changes_nothing(start):
    _, folder = start("--epochs", "1")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}
    for resume in ("auto", str(folder / "checkpoint.pth.tar")):
        status, _ = start("--resume", resume)
        assert status == 0
        assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()} == before


@pytest.mark.slow
def test_max_steps_counts_over_resumes_and_a_finished_run_takes_more_epochs(start):
    start("--epochs", "2", "--max-steps", "2", "--no-val")
    _, folder = start("--resume", "auto", "--max-steps", "4", "--no-val")
    assert latest(folder)["step"] == 4
    _, folder = start("--resume", "auto", "--epochs", "3", "--no-val")
    assert latest(folder)["step"] == 9
    assert [row["epoch"] for row in log(folder)] == [1, 2, 3]


def test_resume_auto_starts_a_new_run_if_there_is_none(start, capsys):
    status, folder = start("--resume", "auto", "--epochs", "1", "--no-val")
    assert status == 0 and folder.name == "experiment_0"
    assert "fresh start" in capsys.readouterr().out
    assert log(folder)[0]["val_miou"] is None


def test_each_new_run_has_its_own_folder(start):
    for number in range(2):
        _, folder = start("--max-steps", "1", "--no-val")
        assert folder.name == f"experiment_{number}"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--batch-size", "3"], "--batch-size 3 contradicts the checkpoint's 2"),
        (["--head", "standard"], "--head standard contradicts the checkpoint's lite"),
        (["--seed", "5"], "--seed 5 contradicts the checkpoint's 1"),
    ],
)
def test_a_flag_that_contradicts_the_checkpoint_is_an_error(start, capsys, flags, expected):
    _, folder = start("--max-steps", "1", "--no-val")
    before = (folder / "checkpoint.pth.tar").read_bytes()
    status, _ = start("--resume", str(folder / "checkpoint.pth.tar"), *flags)
    assert status == 2
    line = error_line(capsys.readouterr().err)
    assert expected in line and "--ft" in line
    assert (folder / "checkpoint.pth.tar").read_bytes() == before


def test_changed_schedule_flags_take_effect_and_are_printed(start, capsys):
    start("--epochs", "1", "--no-val")
    status, folder = start("--resume", "auto", "--epochs", "2", "--weight-decay", "0.001", "--no-val")
    out = capsys.readouterr().out
    assert status == 0 and "--epochs 2 instead of 1" in out and "--weight-decay 0.001 instead of" in out
    assert {group["weight_decay"] for group in latest(folder)["optimizer"]["param_groups"]} == {0.001, 0.0}


@pytest.mark.slow
def test_fine_tuning_takes_the_network_without_its_classifier(start, tmp_path, capsys):
    _, first = start("--epochs", "1")
    other = write_voc(tmp_path / "other", {"train": list("abcd"), "val": ["e"]}, num_classes=5)
    (other / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    capsys.readouterr()
    # The network comes from the checkpoint: no flag names it
    flags = ["--resume", str(first / "checkpoint.pth.tar"), "--ft", "--epochs", "1", "--lr", "1e-12", "--freeze-bn"]
    flags += ["--crop-size", "33", "--batch-size", "2", "--workers", "0", "--run-dir", str(tmp_path / "ft")]
    status = train.main([*flags, "--dataset", "folder", "--data-root", str(other), "--checkname", "x"])
    assert status == 0 and "decoder.classifier.weight" in capsys.readouterr().out
    folder = tmp_path / "ft/folder/x/experiment_0"
    before, after = latest(first), latest(folder)
    assert after["config"]["head"] == "lite"
    assert after["epoch"] == 1 and after["state_dict"]["decoder.classifier.weight"].shape[0] == 5
    assert after["best_pred"] == log(folder)[0]["val_miou"]  # not the best score of the first run
    name = "backbone.features.5.conv.0.0.weight"
    torch.testing.assert_close(after["state_dict"][name], before["state_dict"][name])


def test_frozen_batch_norm_keeps_its_statistics(start):
    _, folder = start("--epochs", "1", "--freeze-bn", "--no-val", "--batch-size", "1")
    means = [value for name, value in latest(folder)["state_dict"].items() if name.endswith("running_mean")]
    assert means and all((value == 0).all() for value in means)


def test_micro_batches_give_the_gradient_of_the_whole_batch(start):
    """Without dropout and with batch norm frozen: else the images of a micro-batch depend on each other."""
    flags = ["--max-steps", "2", "--freeze-bn", "--dropout", "0", "--no-val", "--use-balanced-weights"]
    flags += ["--batch-size", "3"]  # --freeze-bn divides an even one by itself
    _, whole = start(*flags, runs="whole")
    _, parts = start(*flags, "--accumulate", "3", runs="parts")
    one, two = latest(whole)["state_dict"], latest(parts)["state_dict"]
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert log(whole)[0]["train_loss"] == pytest.approx(log(parts)[0]["train_loss"], rel=1e-5)


def test_config_json_names_the_micro_batches_and_the_checkpoint_keeps_the_flag(start):
    """--freeze-bn: one process divides an even batch in two, as two processes do. They must resume this run too."""
    _, folder = start("--max-steps", "1", "--no-val", "--freeze-bn")
    assert json.loads((folder / "config.json").read_text())["accumulate"] == 2
    assert latest(folder)["config"]["accumulate"] == 1


def test_the_number_of_workers_changes_no_bit(start):
    folders = [start("--max-steps", "4", "--no-val", "--workers", number, runs=number)[1] for number in ("0", "2")]
    assert differences(*[latest(folder)["state_dict"] for folder in folders]) == []


@pytest.mark.parametrize(
    "flags",
    [
        "--amp bf16 --nesterov",
        *(
            pytest.param(flags, marks=pytest.mark.slow)
            for flags in (
                "--loss-type focal --use-balanced-weights",
                "--loss-type ohem --no-channels-last",
                "--lr-scheduler step --lr-step 1 --warmup-steps 2 --eval-interval 2",
                "--ema 0.5 --bn-momentum 0.01 --deterministic",
                "--head standard --base-size 40",
                "--crop-size 33 49 --out-stride 8",
            )
        ),
    ],
)
def test_every_option_trains_and_scores(start, flags):
    status, folder = start("--epochs", "2", "--max-steps", "4", *flags.split())
    assert status == 0
    rows = log(folder)
    assert all(np.isfinite(row["train_loss"]) for row in rows) and rows[-1]["val_miou"] is not None


@pytest.mark.slow
def test_fp16_trains_with_a_loss_scale(start):
    status, folder = start("--max-steps", "3", "--amp", "fp16", "--no-val")
    state = latest(folder)
    assert status == 0 and state["scaler"]["scale"] > 0
    assert all(value.isfinite().all() for value in state["state_dict"].values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs g++")
def test_compiled_training_gives_the_same_loss(start):
    # Compiled dropout draws other numbers, and batch norm over two pooled values magnifies rounding
    flags = ["--max-steps", "2", "--no-val", "--dropout", "0", "--freeze-bn"]
    _, plain = start(*flags, runs="plain")
    status, compiled = start(*flags, "--compile", runs="compiled")
    assert status == 0
    assert log(compiled)[0]["train_loss"] == pytest.approx(log(plain)[0]["train_loss"], rel=1e-3)


def test_training_lowers_the_loss(start):
    _, folder = start("--epochs", "12", "--lr", "0.05", "--no-val")
    losses = [row["train_loss"] for row in log(folder)]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.slow
def test_the_averaged_weights_are_scored(start, tmp_path):
    _, folder = start("--epochs", "2", "--ema", "0.99", "--lr", "0.1")
    state, name = latest(folder), "aspp.project.0.weight"
    assert not torch.equal(state["ema_state_dict"][name], state["state_dict"][name])
    evaluate.main(["--checkpoint", str(folder / "checkpoint.pth.tar"), "--out", str(tmp_path), "--workers", "0"])
    assert json.loads((tmp_path / "metrics.json").read_text())["miou"] == log(folder)[-1]["val_miou"]


@pytest.mark.parametrize(
    "name",
    ["pascal with SBD", "coco", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                  ("pascal", "cityscapes", "ade20k", "context"))],
)  # fmt: skip
def test_the_other_datasets_train_resume_and_score(name, request, start):
    dataset, *sbd = name.split(" with ")
    root = request.getfixturevalue({"pascal": "voc"}.get(dataset, dataset) + "_root")
    data = ["--dataset", dataset, "--data-root", str(root)]
    extra = ["--use-sbd", "--sbd-root", str(request.getfixturevalue("sbd_root"))] if sbd else []
    status, folder = start("--max-steps", "1", *extra, data=data)
    assert status == 0 and latest(folder)["step"] == 1
    checkpoint = str(folder / "checkpoint.pth.tar")
    assert start("--resume", checkpoint, "--max-steps", "2", data=data)[0] == 0
    assert latest(folder)["step"] == 2
    assert evaluate.main(["--checkpoint", checkpoint, *data, "--workers", "0"]) == 0


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--accumulate", "2"], "--batch-size 2 leaves batch norm 1 image a process and micro-batch"),
        (["--ft", "--resume", "auto"], "--ft takes the weights of a checkpoint: name it with --resume FILE"),
        (["--weights-from", "xception65_coco_voc_trainaug", "--resume", "c.pth"], "leave out --resume FILE"),
        (["--width", "0.5", "--backbone", "drn22"], "--width is defined for mobilenet alone: leave it out for drn22"),
        (["--ohem-fraction", "0", "--loss-type", "ohem"], "--ohem-fraction 0"),
        (["--dropout", "2"], "--dropout: '2' is not a number from 0 to below 1"),
        (["--epochs", "0"], "--epochs: '0' is not a whole number above 0"),
        (["--workers", "-1"], "--workers: '-1' is not a whole number, 0 or more"),
        (
            ["--loss-type", "dcie"],
            "unknown loss 'dcie': choose one of ce, focal, ohem, dice, lovasz, rmi, did you mean",
        ),
        (["--loss-type", "ce:1+dice:x"], "--loss-type ce:1+dice:x: 'x' is no weight"),
        (["--loss-type", "ce+ce:2"], "--loss-type ce+ce:2 names ce twice"),
        (["--use-sbd", "True"], "unrecognized arguments: True"),
        (["--sync-bn", "False"], "unrecognized arguments: False"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_cannot_hold_are_an_error_before_a_run_folder_is_made(start, capsys, flags, expected):
    """Further ones are in test_bad_input.py."""
    status, folder = start(*flags)
    assert status == 2 and folder is None
    assert expected in error_line(capsys.readouterr().err)


def test_help_shows_the_defaults_of_each_dataset(capsys):
    with pytest.raises(SystemExit):
        train.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for expected in ("pascal 0.007", "cityscapes 769", "pascal 46", "demo mobilenet", "(default: poly)"):
        assert expected in text


def test_an_image_that_a_worker_cannot_decode_stops_with_its_path(start, folder_root, capsys):
    """Its header is whole, so that the check of the labels before the run finds nothing."""
    for path in (folder_root / "JPEGImages").glob("t*"):
        path.write_bytes(path.read_bytes()[:-300])
    status, folder = start("--epochs", "1", "--workers", "1")
    line = error_line(capsys.readouterr().err)
    assert status == 2 and folder.is_dir()
    assert line.startswith(f"error: {folder_root}/JPEGImages/t.") and "cannot be read as an image" in line


def test_evaluate_refuses_a_dataset_with_another_number_of_classes(start, voc_root, capsys):
    _, folder = start("--max-steps", "1", "--no-val")
    checkpoint = str(folder / "checkpoint.pth.tar")
    assert evaluate.main(["--checkpoint", checkpoint, "--dataset", "pascal", "--data-root", str(voc_root)]) == 2
    assert "knows 3 classes, pascal has 21" in error_line(capsys.readouterr().err)
