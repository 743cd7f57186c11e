"""On a GPU: steps in every precision, resume, determinism, no waits, --compile, scoring against the CPU, NCCL.

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
from utils.losses import LOSSES, build_loss
from utils.optim import build_sgd
from utils.run.checkpoint import read_checkpoint

DEVICE = "cuda"
IS_MISSING = not torch.cuda.is_available()
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(IS_MISSING, reason="needs a CUDA GPU")]
AMP = pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root), "--device", DEVICE]


def state_of(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoint.pth.tar")


def require_equal(one: dict, two: dict) -> None:
    """The same weights, momentum, averages and counters, bit for bit."""
    keys = ("state_dict", "optimizer", "step", "epoch_losses", "ema_state_dict")
    assert differences(*({key: state[key] for key in keys if key in state} for state in (one, two))) == []


def small_trainer(loss: str = "ce", **settings: object) -> Trainer:
    """MobileNetV2 on noise, 33x33, in batches of four."""
    torch.manual_seed(0)
    device = torch.device(DEVICE, 0) if DEVICE == "cuda" else torch.device(DEVICE)
    model = build_model("mobilenet", 3).to(device)
    optimizer = build_sgd(
        model, model.backbone, lr=0.01, head_lr_factor=1.0, weight_decay=1e-4, momentum=0.9, nesterov=False
    )
    return Trainer(
        model, build_loss(loss, class_weights=[1.0, 2.0, 3.0]).to(device), optimizer, lambda step: 1.0,
        ToyLoader(100, {}), None, settings=Settings(**{"epochs": 1, "batch_size": 4, "channels_last": True} | settings),
        classes="abc", recorder=ToyRecorder({}), signals=ToySignals(), device=device,
    )  # fmt: skip


def noise(seed: int) -> dict:
    """A micro-batch in pinned memory, as the loader of a GPU gives it."""
    random = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (4, 3, 33, 33), generator=random, dtype=torch.uint8)
    label = torch.randint(0, 3, (4, 33, 33), generator=random, dtype=torch.uint8)
    label[:, :3] = 255
    batch = {"image": image, "label": label}
    return ({name: value.pin_memory() for name, value in batch.items()} if DEVICE == "cuda" else batch) | {
        "id": ["x"] * 4
    }


@AMP
@pytest.mark.parametrize("loss", LOSSES)
def test_training_lowers_every_loss_in_every_precision(loss, amp):
    trainer = small_trainer(loss, amp=amp)
    trainer.network.train()
    batch, losses = noise(1), []
    batch["label"][:, 3:] = 1
    for _ in range(12):  # the first steps of fp16 may be skipped
        total, weight, *_ = trainer.train_step([batch]).sums.read()
        losses.append(total / weight)
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


@AMP
@pytest.mark.parametrize("flags", [[], ["--accumulate", "2"], ["--ema", "0.9"], ["--freeze-bn"],
                                   ["--use-balanced-weights"], ["--no-channels-last"]], ids=" ".join)  # fmt: skip
def test_a_run_with_every_option(data, tmp_path, flags, amp):
    status, folder = in_process(data, tmp_path, "--epochs", "2", "--batch-size", "4", "--amp", amp, *flags)
    assert status == 0 and all(np.isfinite(row["train_loss"]) for row in log(folder))
    state = state_of(folder)
    assert all(value.isfinite().all() for value in state["state_dict"].values() if value.is_floating_point())


@pytest.mark.parametrize(("first", "second"), [("off", "fp16"), ("fp16", "off"), ("bf16", "fp16"), ("off", "bf16")])
def test_a_resumed_run_may_change_its_precision(data, tmp_path, first, second):
    _, folder = in_process(data, tmp_path, "--epochs", "4", "--max-steps", "1", "--amp", first)
    before = state_of(folder)
    checkpoint = str(folder / "checkpoint.pth.tar")
    status, _ = in_process(data, tmp_path, "--resume", checkpoint, "--amp", second, "--epochs", "12")
    assert status == 0 and state_of(folder)["step"] > before["step"]


@pytest.mark.parametrize("loss", LOSSES)
def test_deterministic_runs_are_equal(data, tmp_path, loss):
    """In processes of their own, as cuBLAS reads its setting once."""
    flags = ["--deterministic", "--loss-type", loss, "--epochs", "2", "--device", DEVICE, "--head", "separable"]
    for name in ("one", "two"):
        complete(command(data, tmp_path / name, *flags))
    one, two = (state_of(next((tmp_path / name / "folder/x").iterdir())) for name in ("one", "two"))
    require_equal(one, two)


@pytest.mark.parametrize("flags", [[], ["--ema", "0.9", "--amp", "bf16"], ["--amp", "fp16"]], ids=str)
def test_a_resumed_run_ends_as_one_that_never_stopped(data, tmp_path, flags):
    flags = [*flags, "--deterministic", "--epochs", "4"]
    complete(command(data, tmp_path / "whole", *flags))
    complete(command(data, tmp_path / "parts", *flags, "--max-steps", "1", "--no-val"))
    (folder,) = (tmp_path / "parts/folder/x").iterdir()
    resumed = ["--deterministic", "--resume", str(folder / "checkpoint.pth.tar")]
    complete(command(data, tmp_path / "parts", *resumed))
    require_equal(state_of(next((tmp_path / "whole/folder/x").iterdir())), state_of(folder))


@AMP
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_does_not_wait_for_the_gpu(loss, amp):
    trainer = small_trainer(loss, amp=amp, ema_decay=0.9)
    trainer.network.train()
    batches = [noise(seed) for seed in range(5)]
    for batch in batches[:2]:  # allocate
        trainer.train_step([batch]).sums.read()
    torch.cuda.set_sync_debug_mode("error")
    try:
        launched = [trainer.train_step([batch]) for batch in batches[2:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(np.isfinite(step.sums.read()).all() for step in launched)


def test_scoring_does_not_wait_for_the_gpu():
    from utils.inference import Predictor
    from utils.scoring.metrics import ConfusionMatrix

    trainer = small_trainer()
    predictor, confusion = Predictor(trainer.model, trainer.device, amp="bf16"), ConfusionMatrix(3, trainer.device)
    batches = [noise(seed) for seed in range(3)]
    confusion.update(predictor(batches[0]["image"]).argmax(1), batches[0]["label"].to(trainer.device))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            label = batch["label"].to(trainer.device, non_blocking=True)
            confusion.update(predictor(batch["image"]).argmax(1), label)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert confusion.counts.sum() == 3 * 4 * 30 * 33


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_loss_that_is_not_finite_changes_no_weight(amp):
    trainer = small_trainer(amp=amp)
    trainer.network.train()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    whole = trainer.criterion.forward
    trainer.criterion.forward = lambda logits, label: (whole(logits, label)[0] * float("nan"), whole(logits, label)[1])
    trainer.train_step([noise(1)])
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_compiled_network_has_one_graph_also_after_a_validation(monkeypatch):
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    trainer = small_trainer(amp="bf16", compile=True)
    for _ in range(2):
        trainer.network.train()
        trainer.train_step([noise(1)]).sums.read()
        trainer.model.eval()
        with torch.no_grad():
            trainer.model(torch.zeros(1, 3, 49, 49, device=trainer.device))
        monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    assert sum(counters["graph_break"].values()) == 0 and counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("flags", [[], ["--protocol", "slide", "--crop-size", "33"], ["--scales", "0.5", "1.0", "1.5"],
                                   ["--flip"]], ids=" ".join)  # fmt: skip
def test_evaluation_equals_that_on_the_cpu_but_for_near_ties(data, tmp_path, flags):
    """At most 1 pixel of 1,000 may have another label; TF32 rounds the weights to 10 bits, so it is off here."""
    _, folder = in_process(data, tmp_path / "run", "--epochs", "2")
    counts, was_on = {}, torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for device in ("cpu", DEVICE):
            out = tmp_path / f"on_{device}_{len(counts)}"
            arguments = ["--checkpoint", str(folder / "checkpoint.pth.tar"), "--workers", "0", "--out", str(out)]
            assert evaluate.main([*arguments, "--device", device, "--amp", "off", *flags]) == 0
            rows = (out / "confusion.csv").read_text().splitlines()[1:]
            counts[out] = np.array([[int(cell) for cell in row.split(",")[1:]] for row in rows])
    finally:
        torch.backends.cudnn.allow_tf32 = was_on
    one, two = counts.values()
    share = np.abs(one - two).sum() / 2 / one.sum()
    print(f"{flags}: share of the pixels with another label {share:.1e}")
    assert one.sum() == two.sum() and share <= 1e-3


def test_bf16_is_the_default_of_scoring(data, tmp_path):
    _, folder = in_process(data, tmp_path / "run", "--epochs", "1")
    arguments = ["--checkpoint", str(folder / "checkpoint.pth.tar"), "--workers", "0", "--out", str(tmp_path / "out")]
    assert evaluate.main([*arguments, "--device", DEVICE]) == 0
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    assert json.loads((tmp_path / "out/metrics.json").read_text())["amp"] == expected
    assert json.loads((folder / "config.json").read_text())["amp"] == expected


def test_prediction(data, folder_root, tmp_path):
    _, folder = in_process(data, tmp_path / "run", "--epochs", "1")
    image = next((folder_root / "JPEGImages").iterdir())
    arguments = ["--checkpoint", str(folder / "checkpoint.pth.tar"), str(image), "--out", str(tmp_path / "out")]
    assert predict.main([*arguments, "--device", DEVICE, "--workers", "0", "--scores"]) == 0
    with Image.open(image) as original, Image.open(tmp_path / f"out/{image.stem}.png") as labels:
        assert labels.size == original.size and np.asarray(labels).max() < 255


def test_nccl_with_one_process(data, tmp_path):
    """DDP and NCCL's all_reduce, as on several GPUs."""
    out = complete(command(data, tmp_path / "run", "--epochs", "2", "--amp", "bf16", launcher=torchrun(1)))
    assert "best val mIoU" in out
    (folder,) = (tmp_path / "run/folder/x").iterdir()
    scoring = [
        "--checkpoint",
        str(folder / "model_best.pth.tar"),
        "--device",
        DEVICE,
        "--out",
        str(tmp_path / "scores"),
    ]
    complete([sys.executable, *torchrun(1), str(ROOT / "evaluate.py"), *scoring])
    assert (tmp_path / "scores/metrics.json").exists()
