"""A report of made-up numbers for tests, and pages opened in the Chromium of this machine."""

import shutil

import numpy as np
import pytest

from utils.palettes import voc_palette
from utils.run.report.content import Report
from utils.scoring.metrics import score_counts
from utils.scoring.visualize import Example

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip


def require_chromium() -> str:
    """The path of Chromium; skips the test without it or its driver."""
    pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -r requirements-dev.txt")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return CHROMIUM


def make_example(key: str, num_classes: int, seed: int = 0, size: tuple[int, int] = (60, 80)) -> Example:
    """Labels in vertical stripes; the upper quarter is ignored, and the left half of the image is predicted wrong."""
    label = np.broadcast_to(np.arange(size[1]) // 20 % num_classes, size).astype(np.uint8)
    prediction = label.copy()
    prediction[:, : size[1] // 2] = (label[:, : size[1] // 2] + 1) % num_classes
    label[: size[0] // 4] = 255
    image = np.random.default_rng(seed).integers(0, 256, (3, *size), dtype=np.uint8)
    return Example(image, label, prediction, key, 0.25 + seed / 100)


def make_counts(num_classes: int) -> np.ndarray:
    counts = np.random.default_rng(4).integers(1, 1000, (num_classes, num_classes))
    return counts + np.diag(np.full(num_classes, 5000))


def make_rows(count: int) -> list[dict]:
    return [
        {"epoch": n, "step": 50 * n, "train_loss": 1 / n, "val_loss": 1.2 / n, "val_miou": n / (n + 2), "lr": 0.1 / n,
         "val_pixel_accuracy": 0.9, "seconds": 20.0, "val_iou": {"class 0": 0.5, "class 1": n / 10}}
        for n in range(1, count + 1)
    ]  # fmt: skip


def make_report(num_classes: int = 3, num_rows: int = 5, **changes: object) -> Report:
    """`changes`: fields of Report in place of those made here."""
    import torch

    classes, counts = [f"class {number}" for number in range(num_classes)], make_counts(num_classes)
    counts = changes.get("counts", counts)
    content = {
        "title": "folder · mobilenet", "subtitle": "run/folder/x/experiment_0", "classes": classes, "counts": counts,
        "palette": voc_palette(num_classes), "scores": score_counts(torch.from_numpy(counts), classes),
        "settings": {"protocol": "whole", "out_stride": 16, "step": 50 * num_rows},
        "config": {"dataset": "folder", "lr": 0.02, "batch_size": 8, "epochs": 9, "crop_size": [97, 97], "ema": None},
        "changed": ["dataset", "lr"], "machine": {"processor": "a CPU, 2 cores"}, "rows": make_rows(num_rows),
        "commands": ["python train.py --dataset folder --lr 0.02"],
        "spread": [make_example(f"s{n}", num_classes, n) for n in range(3)],
        "worst": [make_example("bad", num_classes, 9)],
        "image_scores": {"s0": (0.5, 0.8, 4000), "bad": (0.1, 0.2, 3000), "void": (None, None, 0)},
    }  # fmt: skip
    return Report(**content | changes)
