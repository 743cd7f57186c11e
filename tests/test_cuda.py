"""On a GPU: steps and runs in every precision against the CPU, no waits, determinism, resume, --compile, scoring, NCCL.

python -m pytest -m cuda tests/test_cuda.py
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import ROOT, command, complete, in_process, log, torchrun
from toy import ToyLoader, ToyRecorder, ToySignals

import evaluate
import predict
from benchmarks.kill_resume import differences
from engine import Settings, Trainer
from modeling import build_model
from modeling.aspp import ImagePooling
from utils.distributed.device import AMP_TYPES, autocast
from utils.inference import Predictor
from utils.losses import LOSSES, build_loss
from utils.optim import build_optimizer
from utils.run.checkpoint import read_checkpoint
from utils.scoring.gallery import Gallery
from utils.scoring.loop import score

DEVICE = "cuda"
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
AMP = pytest.mark.parametrize("amp", AMP_TYPES)
SAVED = "checkpoint.pth.tar"


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root), "--device", DEVICE]


@pytest.fixture
def no_tf32(monkeypatch):
    """Convolutions of 24-bit instead of 11-bit numbers, here and in processes that the test starts."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")


@pytest.fixture
def no_wait():
    """A function after whose call an operation that waits for the GPU fails."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


def run_folder(runs: Path) -> Path:
    (folder,) = (runs / "folder/x").iterdir()
    return folder


def require_equal(one: Path, two: Path) -> None:
    """The checkpoints of two run folders hold the same weights, momentum, averages and counters, bit for bit."""
    keys = ("state_dict", "optimizer", "scaler", "step", "epoch_losses", "ema_state_dict")
    states = [read_checkpoint(folder / SAVED) for folder in (one, two)]
    assert differences(*({key: state[key] for key in keys if key in state} for state in states)) == []


def small_trainer(loss: str = "ce", device: str = DEVICE, **settings: object) -> Trainer:
    """MobileNetV2 without dropout, whose masks differ between devices; batches as those of `noise`."""
    torch.manual_seed(0)
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    model = build_model("mobilenet", 3, dropout=0.0).to(place)
    optimizer = build_optimizer(
        model, model.backbone, lr=0.01, head_lr_factor=1.0, weight_decay=1e-4, momentum=0.9, nesterov=False
    )
    trainer = Trainer(
        model, build_loss(loss, class_weights=[1.0, 2.0, 3.0]).to(place), optimizer, lambda step: 1.0,
        ToyLoader(100, {}), None, settings=Settings(**{"epochs": 1, "batch_size": 4, "channels_last": True} | settings),
        classes="abc", recorder=ToyRecorder({}), signals=ToySignals(), device=place,
    )  # fmt: skip
    trainer.network.train()
    return trainer


def noise(seed: int) -> dict:
    """A micro-batch of four images, 65x65, in pinned memory as the loader of a GPU gives it."""
    random = torch.Generator().manual_seed(seed)
    batch = {
        "image": torch.randint(0, 256, (4, 3, 65, 65), generator=random, dtype=torch.uint8),
        "label": torch.randint(0, 3, (4, 65, 65), generator=random, dtype=torch.uint8),
    }
    batch["label"][:, :5] = 255
    pinned = {name: value.pin_memory() if DEVICE == "cuda" else value for name, value in batch.items()}
    return pinned | {"id": ["x"] * 4}


def mean_loss(trainer: Trainer, micro_batches: list[dict]) -> float:
    total, weight, *_ = trainer.train_step(micro_batches).sums.read()
    return total / weight


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_equals_that_of_the_cpu(no_tf32, record_property, loss, accumulate):
    losses, updates = [], []
    for device in ("cpu", DEVICE):
        trainer = small_trainer(loss, device, accumulate=accumulate)
        before = torch.cat([each.detach().flatten().cpu() for each in trainer.model.parameters()])
        losses.append(mean_loss(trainer, [noise(number) for number in range(accumulate)]))
        after = torch.cat([each.detach().flatten().cpu() for each in trainer.model.parameters()])
        updates.append(after - before)
    error = float((updates[1] - updates[0]).norm() / updates[0].norm())
    record_property("margins", f"step on the GPU, {loss} x {accumulate}: the update differs by {error:.1e} of its norm")
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert error < 0.1  # batch norm over few pixels: relative noise of 3e-6 in each convolution makes 0.03


@AMP
@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_every_loss_in_every_precision(loss, amp):
    trainer, batch = small_trainer(loss, amp=amp), noise(1)
    batch["label"][:, 5:] = 1
    losses = [mean_loss(trainer, [batch]) for _ in range(12)]  # the first steps of fp16 may be skipped
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


@AMP
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_does_not_wait_for_the_gpu(no_wait, loss, amp):
    trainer = small_trainer(loss, amp=amp, accumulate=2, ema_decay=0.9)
    batches = [[noise(2 * number), noise(2 * number + 1)] for number in range(5)]
    for batch in batches[:2]:  # allocate
        trainer.train_step(batch).sums.read()
    no_wait()
    launched = [trainer.train_step(batch) for batch in batches[2:]]
    assert all(np.isfinite(step.sums.read()).all() for step in launched)


@pytest.mark.parametrize("views", [{}, {"scales": (0.5, 1.0), "flip": True}, {"window": (33, 33), "stride": (32, 32)}])
def test_scoring_does_not_wait_for_the_gpu(no_wait, views):
    trainer, observer = small_trainer(), Gallery(3, ["0a"])
    predictor = Predictor(trainer.model, trainer.device, amp="bf16", **views)
    batches = [noise(seed) | {"id": [f"{seed}{letter}" for letter in "abcd"]} for seed in range(3)]
    how = {"num_classes": 3, "device": trainer.device, "observers": [observer]}
    score(predictor, batches[:1], **how)  # allocate
    no_wait()
    confusion = score(predictor, batches, **how)
    torch.cuda.set_sync_debug_mode("default")
    assert confusion.counts.sum() == 3 * 4 * 60 * 65 and len(observer.rows) == 12


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_loss_that_is_not_finite_changes_neither_weights_nor_momentum(amp):
    trainer = small_trainer(amp=amp)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    finite = trainer.make_step.criterion.forward
    trainer.make_step.criterion.forward = lambda *maps: (finite(*maps)[0] * float("nan"), finite(*maps)[1])
    assert np.isnan(mean_loss(trainer, [noise(1)]))
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(old, new)
    assert all((state["momentum_buffer"] == 0).all() for state in trainer.optimizer.state.values())


def test_the_gradient_of_image_pooling_is_summed_in_float32():
    """A bilinear upsampling from 1x1 would sum 1,089 gradients of a channel in bf16, several percent off."""
    torch.manual_seed(0)
    pooling, features, gradient = ImagePooling(32, 32).eval(), torch.rand(2, 32, 33, 33), torch.rand(2, 32, 33, 33)
    weights = []
    for device, amp in (("cpu", "off"), (DEVICE, "bf16")):
        layer = pooling.to(device)
        layer.zero_grad()
        with autocast(amp, torch.device(device)):
            pooled = layer(features.to(device))
        pooled.backward(gradient.to(pooled))
        weights.append(layer[0].weight.grad.cpu())
    assert (weights[1] - weights[0]).norm() / weights[0].norm() < 0.01


@AMP
@pytest.mark.parametrize("flags", [[], ["--accumulate", "2"], ["--ema", "0.9"], ["--freeze-bn"],
                                   ["--use-balanced-weights"], ["--no-channels-last"]], ids=" ".join)  # fmt: skip
def test_a_run_with_every_option(data, tmp_path, flags, amp):
    status, folder = in_process(data, tmp_path, "--epochs", "2", "--batch-size", "4", "--amp", amp, *flags)
    assert status == 0 and all(np.isfinite(row["train_loss"]) for row in log(folder))
    weights = read_checkpoint(folder / SAVED)["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("first", AMP_TYPES)
@pytest.mark.parametrize("second", AMP_TYPES)
def test_a_resumed_run_may_change_its_precision(data, tmp_path, first, second):
    _, folder = in_process(data, tmp_path, "--epochs", "4", "--max-steps", "1", "--amp", first)
    status, _ = in_process(data, tmp_path, "--resume", str(folder / SAVED), "--amp", second)
    assert status == 0 and read_checkpoint(folder / SAVED)["step"] == 12


@pytest.mark.parametrize(
    "flags",
    [*[["--loss-type", loss, "--head", "separable"] for loss in LOSSES], ["--backbone", "resnet50", "--amp", "bf16"],
     ["--use-balanced-weights", "--accumulate", "2", "--batch-size", "4", "--amp", "fp16"]],
    ids=" ".join,
)  # fmt: skip
def test_deterministic_runs_are_equal(data, tmp_path, flags):
    """In processes of their own, as cuBLAS reads its setting once."""
    for name in ("one", "two"):
        complete(command(data, tmp_path / name, "--deterministic", "--epochs", "2", *flags))
    require_equal(run_folder(tmp_path / "one"), run_folder(tmp_path / "two"))


@pytest.mark.parametrize("flags", [[], ["--ema", "0.9", "--amp", "bf16"], ["--amp", "fp16"]], ids=" ".join)
def test_a_resumed_run_ends_as_one_that_never_stopped(data, tmp_path, flags):
    """In processes of their own, stopped in the middle of an epoch."""
    flags = [*flags, "--deterministic", "--epochs", "4"]
    complete(command(data, tmp_path / "whole", *flags))
    complete(command(data, tmp_path / "parts", *flags, "--max-steps", "4"))
    folder = run_folder(tmp_path / "parts")
    complete(command(data, tmp_path / "parts", "--deterministic", "--resume", str(folder / SAVED)))
    require_equal(run_folder(tmp_path / "whole"), folder)


@pytest.mark.parametrize("flags", [["--head", "separable"], ["--backbone", "resnet50", "--ema", "0.9"]], ids=" ".join)
def test_a_compiled_run_has_one_graph_also_after_validations(data, tmp_path, flags):
    from torch._dynamo.utils import counters  # slow to import

    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(error_on_recompile=True):
        status, folder = in_process(data, tmp_path, "--compile", "--epochs", "3", *flags)
    assert status == 0 and [row["step"] for row in log(folder)] == [3, 6, 9]
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1


VIEWS = pytest.mark.parametrize("views", [[], ["--protocol", "slide", "--crop-size", "33", "17", "--flip"],
                                          ["--scales", "0.5", "1.0", "1.5", "--flip"]], ids=" ".join)  # fmt: skip


@VIEWS
def test_evaluation_equals_that_of_the_cpu_but_for_near_ties(no_tf32, record_property, folder_network, tmp_path, views):
    """At most 1 pixel of 500 has another label."""
    results = []
    for device in ("cpu", DEVICE):
        out = tmp_path / f"{device}{len(results)}"
        flags = ["--checkpoint", folder_network, "--workers", "0", "--out", out, "--save-predictions", out / "saved",
                 "--device", device, "--amp", "off", "--trimap", "2", "--boundary", *views]  # fmt: skip
        assert evaluate.main([str(flag) for flag in flags]) == 0
        labels = np.concatenate([np.asarray(Image.open(path)).ravel() for path in sorted((out / "saved").iterdir())])
        metrics = json.loads((out / "metrics.json").read_text())
        results.append((labels, [metrics["miou"], metrics["boundary"]["miou"], *metrics["trimap"]["miou"].values()]))
    share = np.mean(results[0][0] != results[1][0])
    record_property("margins", f"evaluate on the GPU {' '.join(views)}: {share:.2%} of the pixels have another label")
    assert share <= 2e-3 and results[1][1] == pytest.approx(results[0][1], abs=0.005)


@AMP
@VIEWS
def test_prediction_equals_that_of_the_cpu_but_for_near_ties(
    no_tf32, record_property, folder_network, folder_root, tmp_path, views, amp
):
    """At most 1 pixel of 500 has another label; in mixed precision 3 of 10, as random weights give many near-ties."""
    image, labels = next((folder_root / "JPEGImages").iterdir()), []
    for number, (device, precision) in enumerate((("cpu", "off"), (DEVICE, amp))):
        out = tmp_path / str(number)
        flags = ["--checkpoint", folder_network, image, "--out", out, "--workers", "0", "--scores", *views]
        assert predict.main([*map(str, flags), "--device", device, "--amp", precision]) == 0
        labels.append(np.asarray(Image.open(out / f"{image.stem}.png")))
    share = np.mean(labels[0] != labels[1])
    record_property("margins", f"predict on the GPU, {amp} {' '.join(views)}: {share:.2%} of the pixels differ")
    assert share <= (2e-3 if amp == "off" else 0.3)


def test_bf16_is_the_default_of_training_and_scoring(data, tmp_path):
    _, folder = in_process(data, tmp_path / "run", "--epochs", "1")
    arguments = ["--checkpoint", str(folder / SAVED), "--workers", "0", "--out", str(tmp_path / "out")]
    assert evaluate.main([*arguments, "--device", DEVICE]) == 0
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    assert json.loads((tmp_path / "out/metrics.json").read_text())["amp"] == expected
    assert json.loads((folder / "config.json").read_text())["amp"] == expected


# A single process joins a group as one of several does
DRIVER = """
import contextlib, sys
sys.path.insert(0, sys.argv[1])
import evaluate, train
from utils import distributed
from utils.distributed.group import Member, dist

@contextlib.contextmanager
def process_group():
    distributed.member = Member()
    yield
    print("backend", dist.get_backend())
    dist.destroy_process_group()

train.process_group = evaluate.process_group = process_group
sys.exit({"train": train, "evaluate": evaluate}[sys.argv[2]].main(sys.argv[3:]))
"""


def test_one_process_over_nccl_trains_and_scores_as_without(no_tf32, data, tmp_path):
    """DistributedDataParallel and the collectives of several GPUs; `torchrun` alone starts no NCCL for one process."""
    driver, backend = tmp_path / "driver.py", "nccl" if DEVICE == "cuda" else "gloo"
    driver.write_text(DRIVER)
    start = [sys.executable, *torchrun(1), str(driver), str(ROOT)]
    flags = ["--epochs", "2", "--amp", "off", "--ema", "0.9", "--accumulate", "2", "--batch-size", "4"]
    _, folder = in_process(data, tmp_path / "one", *flags)
    _, _, *arguments = command(data, tmp_path / "two", *flags)
    assert f"backend {backend}" in complete([*start, "train", *arguments])
    other = run_folder(tmp_path / "two")
    for one, two in zip(log(folder), log(other), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.02)
    scoring = ["--checkpoint", str(other / SAVED), "--device", DEVICE, "--workers", "0", "--boundary", "--trimap", "2"]
    assert f"backend {backend}" in complete([*start, "evaluate", *scoring, "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores/metrics.json").is_file()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("flags", [["--sync-bn"], ["--freeze-bn"], ["--freeze-bn", "--accumulate", "2"]], ids=" ".join)
def test_two_gpus_train_and_score_like_one(no_tf32, data, tmp_path, flags):
    flags = [*flags, "--dropout", "0", "--epochs", "2", "--batch-size", "4", "--amp", "off"]
    complete(command(data, tmp_path / "two", *flags, launcher=torchrun(2)))
    _, folder = in_process(data, tmp_path / "one", *[flag for flag in flags if flag != "--sync-bn"])
    for one, two in zip(log(folder), log(run_folder(tmp_path / "two")), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=0.02)
        assert two["val_miou"] == pytest.approx(one["val_miou"], abs=0.05)
