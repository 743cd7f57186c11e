"""--limit-val N: validation scores N images spread over the split, and says so."""

import json

import numpy as np
import pytest
import torch
from running import in_process, log
from sample_data import write_voc

from dataloaders import build_dataset, eval_loader
from modeling.pretrained.loaded_model import load_model
from utils.inference import Predictor
from utils.scoring.gallery import evenly_spaced
from utils.scoring.metrics import ConfusionMatrix

LOADING = {"workers": 0, "pin_memory": False}


@pytest.fixture
def root(tmp_path):
    ids = {"train": [f"t{n}" for n in range(6)], "val": [f"v{n}" for n in range(7)]}
    root = write_voc(tmp_path / "mine", ids, num_classes=3)
    (root / "classes.txt").write_text("ground\nwall\nsky\n")
    return root


def train(root, run_dir, *flags) -> tuple:
    return in_process(["--dataset", "folder", "--data-root", str(root)], run_dir, *flags)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_images_evenly_spaced_over_the_split(root, world_size):
    dataset = build_dataset("folder", "val", root=str(root))
    indices = evenly_spaced(range(len(dataset)), 3)
    loaders = [
        eval_loader(dataset, indices=indices, rank=rank, world_size=world_size, **LOADING) for rank in range(world_size)
    ]
    seen = [image_id for loader in loaders for batch in loader for image_id in batch["id"]]
    assert sorted(seen) == ["v1", "v3", "v5"]


def test_the_score_is_that_of_these_images_and_says_so(root, tmp_path, capsys):
    status, folder = train(root, tmp_path / "run", "--max-steps", "1", "--limit-val", "3")
    assert status == 0
    metrics, row = json.loads((folder / "metrics.json").read_text()), log(folder)[-1]
    loaded = load_model(folder / "checkpoint.pth.tar")
    predictor, confusion = Predictor(loaded.model, torch.device("cpu")), ConfusionMatrix(3)
    dataset = build_dataset("folder", "val", root=str(root))
    for index in (1, 3, 5):
        image, label = dataset.read(index)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        confusion.update(predictor(pixels).argmax(1), torch.from_numpy(np.array(label))[None])
    assert metrics["miou"] == pytest.approx(confusion.scores(loaded.classes)["miou"], abs=1e-9)
    assert metrics["limit_val"] == row["limit_val"] == 3 and metrics["pictures"] == row["pictures"] == 3
    out = capsys.readouterr()
    assert "output stride 16 on 3 images (--limit-val)" in out.out
    assert json.loads((folder / "config.json").read_text())["limit_val"] == 3


def test_a_limit_above_the_split_scores_all(root, tmp_path):
    _, folder = train(root, tmp_path / "run", "--max-steps", "1", "--limit-val", "99")
    assert json.loads((folder / "metrics.json").read_text())["pictures"] == 7
    _, other = train(root, tmp_path / "other", "--max-steps", "1")
    metrics = json.loads((other / "metrics.json").read_text())
    assert "limit_val" not in metrics and "limit_val" not in log(other)[-1]
    assert metrics["miou"] == json.loads((folder / "metrics.json").read_text())["miou"]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_limit_and_another_one_starts_a_new_best(root, tmp_path, capsys):
    _, folder = train(root, tmp_path / "run", "--max-steps", "1", "--limit-val", "3")
    resume = ("--resume", str(folder / "checkpoint.pth.tar"))
    train(root, tmp_path / "run", *resume, "--max-steps", "2")
    assert log(folder)[-1]["pictures"] == 3 and "--limit-val changes" not in capsys.readouterr().out
    train(root, tmp_path / "run", *resume, "--max-steps", "3", "--limit-val", "5")
    out = capsys.readouterr().out
    assert "resumed with --limit-val 5 instead of 3" in out and "starts a new best mIoU" in out
    assert log(folder)[-1]["pictures"] == 5
    best = torch.load(folder / "model_best.pth.tar", weights_only=True)
    assert best["step"] == 3 and best["scores"]["pictures"] == 5
