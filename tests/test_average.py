"""modeling.average: the weights of several checkpoints as one."""

import numpy as np
import pytest
import torch
from sample_data import write_voc

from dataloaders import build_dataset, train_loader
from modeling import average, build_model
from modeling.pretrained.loaded_model import load_model
from utils.inference import Normalize
from utils.run.checkpoint import read_checkpoint, write_checkpoint

CLASSES = ["a", "b", "c"]


def checkpoint(path, seed, *, classes=CLASSES, head="lite", **entries):
    """A checkpoint of MobileNetV2 as train.py writes it, as far as averages need it."""
    torch.manual_seed(seed)
    model = build_model("mobilenet", len(classes), head=head)
    config = {"backbone": "mobilenet", "head": head, "dataset": "pascal", "crop_size": [33, 33], "batch_size": 4}
    state = {name: value + seed if value.is_floating_point() else value for name, value in model.state_dict().items()}
    content = {"state_dict": state, "config": config, "classes": classes, "best_pred": 0.5} | model.preprocessing
    write_checkpoint(path, content | entries)
    return str(path)


def test_each_weight_is_the_mean(tmp_path):
    sources = [checkpoint(tmp_path / f"{seed}.pth", seed) for seed in range(3)]
    assert average.main([*sources, "--out", str(tmp_path / "mean.pth")]) == 0
    result, states = read_checkpoint(tmp_path / "mean.pth"), [read_checkpoint(each)["state_dict"] for each in sources]
    for name, value in result["state_dict"].items():
        expected = np.mean([state[name].double().numpy() for state in states], axis=0)
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert "best_pred" not in result and result["config"]["average_of"] == sources
    assert load_model(tmp_path / "mean.pth").classes == tuple(CLASSES)


def test_averaged_weights_of_a_checkpoint_win(tmp_path):
    one = checkpoint(tmp_path / "one.pth", 0)
    state = read_checkpoint(one)["state_dict"]
    other = checkpoint(tmp_path / "two.pth", 5, ema_state_dict=state)
    average.main([one, other, "--out", str(tmp_path / "mean.safetensors")])
    result = read_checkpoint(tmp_path / "mean.safetensors")["state_dict"]
    assert all(torch.equal(result[name], value) for name, value in state.items())


def test_recomputed_statistics_are_those_of_the_training_crops(tmp_path):
    root = write_voc(tmp_path / "VOC2012", {"train": [f"t{n}" for n in range(8)]})
    classes = [f"class {number}" for number in range(21)]
    sources = [checkpoint(tmp_path / f"{seed}.pth", seed, classes=classes) for seed in (0, 1)]
    out = tmp_path / "mean.pth"
    command = [*sources, "--out", str(out), "--recompute-bn", "--num-batches", "3", "--data-root", str(root)]
    assert average.main(command) == 0
    state = read_checkpoint(out)["state_dict"]
    plain = tmp_path / "plain.pth"
    average.main([*sources, "--out", str(plain)])
    other = read_checkpoint(plain)["state_dict"]
    changed = {name for name, value in state.items() if not torch.equal(value, other[name])}
    assert changed and all("running" in name or "num_batches" in name for name in changed)
    assert state["backbone.features.0.1.num_batches_tracked"] == 3
    # The first layer sees the images alone: its statistics are computed here again
    model = load_model(out).model
    loader = train_loader(
        build_dataset("pascal", "train", root=root), crop_size=(33, 33), base_size=None, mean=model.mean, batch_size=4,
        accumulate=1, seed=1, rank=0, world_size=1, workers=0, pin_memory=False, skip_broken=False,
    )  # fmt: skip
    images = []
    for epoch in range(2):
        loader.batch_sampler.set_position(epoch, 0)
        images += [Normalize(model.mean, model.std)(batch["image"]) for batch in loader]
    with torch.no_grad():
        means = [model.backbone.features[0][0](image).mean((0, 2, 3)) for image in images[:3]]
    assert torch.allclose(state["backbone.features.0.1.running_mean"], sum(means) / 3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "word"), [({"classes": ["a", "b", "d"]}, "classes"), ({"head": "lite-decoder"}, "decoder"),
                         ({"mean": [0.5, 0.5, 0.5]}, "mean")],
)  # fmt: skip
def test_other_networks_are_refused(tmp_path, capsys, change, word):
    sources = [checkpoint(tmp_path / "one.pth", 0), checkpoint(tmp_path / "two.pth", 1, **change)]
    assert average.main([*sources, "--out", str(tmp_path / "mean.pth")]) == 2
    error = capsys.readouterr().err
    assert word in error and "two.pth" in error and len(error.splitlines()) == 1
    assert not (tmp_path / "mean.pth").exists()
