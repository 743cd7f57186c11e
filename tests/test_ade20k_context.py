"""ADE20K and Pascal Context: labels that count from 1, the background as a class, networks with an output too many."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from running import error_line, in_process
from sample_data import save_label, write_network
from tensorflow_data import tensorflow_variables, write_tf_checkpoint

import evaluate
import predict
from config.recipes import RECIPES
from dataloaders import build_dataset, check_labels, class_names
from dataloaders import check as checker
from modeling import Architecture
from modeling.pretrained import zoo
from modeling.pretrained.loaded_model import load_model
from utils.class_weights import class_weights
from utils.errors import UserError
from utils.palettes import ADE20K_CLASSES, ADE20K_PALETTE, CONTEXT_CLASSES
from utils.run.checkpoint import read_checkpoint


def stored(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def one_less(values: np.ndarray) -> np.ndarray:
    """0 becomes 255, n becomes n - 1, 255 stays."""
    return np.where((values == 0) | (values == 255), 255, values - 1)


# Labels


def test_classes_and_colors_are_those_of_the_benchmarks():
    assert len(set(ADE20K_CLASSES)) == 150 and ADE20K_CLASSES[:3] == ("wall", "building", "sky")
    assert (ADE20K_CLASSES[12], ADE20K_CLASSES[89], ADE20K_CLASSES[149]) == ("person", "television", "flag")
    assert len(ADE20K_PALETTE) == 150 and ADE20K_PALETTE[0] == (120, 120, 120) and ADE20K_PALETTE[149] == (92, 0, 255)
    assert len(set(CONTEXT_CLASSES)) == 59 and list(CONTEXT_CLASSES) == sorted(CONTEXT_CLASSES)
    (names, colors), (more_names, more_colors) = (class_names("context", context_background=b) for b in (False, True))
    assert (names[0], colors[0]) == ("aeroplane", (180, 120, 120)) and (names[58], colors[58]) == ("wood", (31, 0, 255))
    assert (more_names[0], more_colors[0]) == ("background", (120, 120, 120))
    assert more_names[1:] == names and list(more_colors[1:]) == list(colors)


@pytest.mark.parametrize("above", ["", "ADEChallengeData2016"])
def test_ade20k_maps_1_to_150_to_classes(ade20k_root, tmp_path, above):
    (tmp_path / "data").mkdir()
    ade20k_root.rename(tmp_path / "data/x")
    (tmp_path / "data/x").rename(root := tmp_path / "data" / above) if above else None
    data = build_dataset("ade20k", "train", root=str(root if above else tmp_path / "data/x"))
    assert data.ids == [f"ADE_train_{n:08d}" for n in range(1, 7)] and data.classes == ADE20K_CLASSES
    for index in range(6):
        image, label = data.read(index)
        assert image.mode == "RGB" and np.array_equal(np.asarray(label), one_less(stored(data.label_path(index))))
    found = np.unique([np.asarray(data.read(index)[1]) for index in range(6)])
    assert 255 in found and len(found) > 100


def test_ade20k_takes_the_names_of_its_folders_as_splits(ade20k_root):
    names = [build_dataset("ade20k", split, root=str(ade20k_root)).ids for split in ("val", "validation")]
    assert names[0] == names[1] == ["ADE_val_00000001", "ADE_val_00000002"]
    with pytest.raises(UserError, match=r"ade20k has no split 'minival': choose one of train, val, test"):
        build_dataset("ade20k", "minival", root=str(ade20k_root))


@pytest.mark.parametrize("above", ["", "VOC2010", "VOCdevkit/VOC2010"])
def test_context_ignores_the_background_or_makes_it_a_class(context_root, tmp_path, above):
    root = tmp_path / "somewhere"
    (root / above).parent.mkdir(parents=True, exist_ok=True)
    context_root.rename(root / above if above else root)
    data = build_dataset("context", "train", root=str(root))
    more = build_dataset("context", "train", root=str(root), context_background=True)
    assert data.ids == more.ids == [f"t{n}" for n in range(6)]
    assert len(data.classes) == 59 and more.classes == ("background", *data.classes)
    for index in range(6):
        values = stored(data.label_path(index))
        assert np.array_equal(np.asarray(data.read(index)[1]), one_less(values))
        assert np.array_equal(np.asarray(more.read(index)[1]), values)


def test_a_value_above_the_classes_is_named_as_the_file_has_it(ade20k_root, context_root):
    for path in ade20k_root.glob("annotations/training/*1.png"):
        save_label(np.full((36, 48), 151, np.uint8), path)
    with pytest.raises(UserError, match=r"1\.png holds 151, outside the 150 classes 1\.\.150 \(0, 255: ignored\)"):
        build_dataset("ade20k", "train", root=str(ade20k_root)).read(0)
    save_label(np.full((36, 48), 60, np.uint8), context_root / "SegmentationClassContext/t0.png")
    for background, text in ((False, r"59 classes 1\.\.59 \(0, 255"), (True, r"60 classes 0\.\.59 \(255: ")):
        data = build_dataset("context", "train", root=str(context_root), context_background=background)
        with pytest.raises(UserError, match=rf"t0\.png holds 60, outside the {text}"):
            data.read(0)


def test_checks_and_counts_of_59_and_60_classes_are_kept_apart(context_root, monkeypatch):
    for path in (context_root / "SegmentationClassContext").glob("t*"):
        save_label(np.where(np.eye(36, 48) > 0, 3, 0).astype(np.uint8), path)
    weights, digests = [], []
    for background in (False, True, False):
        data = build_dataset("context", "train", root=str(context_root), context_background=background)
        check_labels(data, workers=0, skip_broken=False)
        weights.append(class_weights(data))
        digests.append(data.label_digest(0))
    share = 36 / (36 * 48)
    assert weights[0] == weights[2] and len(weights[0]) == 59
    assert weights[0][2] == pytest.approx(1 / np.log(2.02)) and weights[0][0] == pytest.approx(1 / np.log(1.02))
    assert weights[1][3] == pytest.approx(1 / np.log(1.02 + share))
    assert weights[1][0] == pytest.approx(1 / np.log(2.02 - share))
    assert digests[0] == digests[2] != digests[1]


# Commands


@pytest.fixture
def context_run(context_root, tmp_path):
    """A function: flags -> (exit status, run folder) of a run on Pascal Context, whose v0 is half background."""
    label = stored(context_root / "SegmentationClassContext/v0.png").astype(np.uint8)
    label[:18] = 0
    save_label(label, context_root / "SegmentationClassContext/v0.png")
    data = ["--dataset", "context", "--data-root", str(context_root)]
    return lambda *flags: in_process(data, tmp_path / "run", *flags)


@pytest.mark.slow
def test_the_background_stays_a_class_when_a_run_is_resumed_or_scored(context_run, context_root, tmp_path, capsys):
    status, folder = context_run("--context-background", "--max-steps", "1")
    path = str(folder / "checkpoint.pth.tar")
    assert status == 0 and json.loads((folder / "config.json").read_text())["context_background"] is True
    assert len(read_checkpoint(path)["classes"]) == 60
    assert context_run("--resume", path, "--max-steps", "2")[0] == 0
    assert read_checkpoint(path)["step"] == 2
    assert context_run("--resume", path, "--no-context-background")[0] == 2
    assert "--context-background False contradicts the checkpoint's True" in error_line(capsys.readouterr().err)
    command = ["--checkpoint", path, "--workers", "0", "--out", str(tmp_path / "scores")]
    assert evaluate.main(command) == 0
    pixels = json.loads((tmp_path / "scores/metrics.json").read_text())["per_class"]["background"]["pixels"]
    labels = [stored(context_root / f"SegmentationClassContext/v{n}.png") for n in range(2)]
    assert pixels == sum((label == 0).sum() for label in labels) > 0
    assert evaluate.main([*command, "--no-context-background"]) == 2
    assert "knows 60 classes, context has 59" in error_line(capsys.readouterr().err)


def test_a_run_without_the_background_is_scored_without_it(context_run, capsys):
    _, folder = context_run("--max-steps", "1", "--no-val", "--no-context-background")
    command = ["--checkpoint", str(folder / "checkpoint.pth.tar"), "--workers", "0"]
    assert evaluate.main(command) == 0
    assert "background" not in capsys.readouterr().out
    assert evaluate.main([*command, "--context-background"]) == 2
    assert "knows 59 classes, context has 60" in error_line(capsys.readouterr().err)


def test_the_checker_counts_the_background_if_it_is_a_class(context_root, tmp_path):
    command = ["--dataset", "context", "--data-root", str(context_root), "--split", "train", "--workers", "0"]
    reports = []
    for flags in ([], ["--context-background"]):
        assert checker.main([*command, *flags, "--json", str(tmp_path / "report.json")]) == 0
        reports.append(json.loads((tmp_path / "report.json").read_text())["splits"]["train"])
    labels = np.stack([stored(context_root / f"SegmentationClassContext/t{n}.png") for n in range(6)])
    assert "background" not in reports[0]["classes"] and len(reports[0]["classes"]) == 59
    assert reports[0]["ignored_pixels"] == ((labels == 0) | (labels == 255)).sum()
    assert reports[1]["classes"]["background"]["pixels"] == (labels == 0).sum()
    assert reports[1]["ignored_pixels"] == (labels == 255).sum()


def test_predict_names_the_classes_of_context(context_root, tmp_path, monkeypatch):
    network = write_network(tmp_path / "net.pth", ("background", *CONTEXT_CLASSES))
    state = torch.load(network)
    del state["classes"], state["palette"]
    torch.save(state, network)
    loaded = []
    monkeypatch.setattr(predict, "load_model", lambda *a, **k: loaded.append(load_model(*a, **k)) or loaded[-1])
    image, out = str(context_root / "JPEGImages/v0.jpg"), str(tmp_path / "out")
    for flags in (["--context-background"], []):
        command = [image, "--checkpoint", str(network), "--dataset", "context", "--out", out, "--workers", "0"]
        assert predict.main([*command, *flags]) == 0
    assert loaded[0].classes == ("background", *CONTEXT_CLASSES) and loaded[0].palette[1] == (180, 120, 120)
    assert loaded[1].classes[1] == "class 1"  # 59 names do not fit 60 outputs


@pytest.mark.parametrize("has_labels", [False, True])
def test_ade20k_submissions_are_1_to_150(ade20k_root, tmp_path, has_labels, monkeypatch):
    network = write_network(tmp_path / "a.pth", ADE20K_CLASSES, dataset="ade20k", data_root=str(ade20k_root))
    split = "val"
    if not has_labels:
        split = "test"
        shutil.copytree(ade20k_root / "images/validation", ade20k_root / "images/testing")
    monkeypatch.setattr("utils.scoring.plots.plot_confusion", lambda *_: None)  # slow
    folders = ["--save-predictions", str(tmp_path / "sub"), "--out", str(tmp_path / "out")]
    assert evaluate.main(["--checkpoint", str(network), "--workers", "0", "--split", split, *folders]) == 0
    files = sorted((tmp_path / "sub").iterdir())
    assert [path.name for path in files] == ["ADE_val_00000001.png", "ADE_val_00000002.png"]
    assert all(Image.open(path).mode == "L" and stored(path).min() >= 1 and stored(path).max() <= 150 for path in files)
    assert (tmp_path / "out/metrics.json").exists() == has_labels
    if has_labels:  # they score as the command says
        pairs = [(stored(path), stored(ade20k_root / "annotations/validation" / path.name)) for path in files]
        right = sum(((one == other) & (other > 0)).sum() for one, other in pairs)
        total = sum((other > 0).sum() for _, other in pairs)
        accuracy = json.loads((tmp_path / "out/metrics.json").read_text())["pixel_accuracy"]
        assert accuracy == pytest.approx(right / total)


@pytest.mark.parametrize(("name", "steps", "images"), [("ade20k", 80_000, 20_210), ("context", 40_000, 4_998)])
def test_the_epochs_of_a_recipe_are_the_fewest_with_its_iterations(name, steps, images):
    recipe = RECIPES[name]
    an_epoch = images // recipe.batch_size
    assert (recipe.epochs - 1) * an_epoch < steps <= recipe.epochs * an_epoch
    assert (recipe.crop_size[0] - 1) % 16 == 0


# Google's networks for ADE20K, of 151 outputs


@pytest.fixture
def ade20k_weights(tmp_path, monkeypatch):
    """(name of a small network in the zoo, the network of 151 outputs whose variables are there)."""
    described = {"backbone": "mobilenet", "head": "lite", "width": 0.25}
    torch.manual_seed(4)
    whole = Architecture(num_classes=151, **described).build().eval()
    torch.nn.init.normal_(whole.decoder.classifier.weight)
    torch.nn.init.normal_(whole.decoder.classifier.bias)
    whole.configure(mean=(0.5,) * 3, std=(0.5,) * 3, epsilon={"backbone": 1e-3, "aspp": 1e-5}, padding="same")
    write_tf_checkpoint(tmp_path / "zoo/model.ckpt", tensorflow_variables(whole))
    released = zoo.Released("http://nowhere/a.tar.gz", Architecture(num_classes=150, **described), 1)
    monkeypatch.setitem(zoo.SEGMENTATION, "small_ade20k", released)
    monkeypatch.setattr(zoo, "get", lambda url: tmp_path / "zoo")
    return "small_ade20k", whole


def test_both_networks_for_ade20k_have_150_of_their_151_outputs():
    for name, released in zoo.SEGMENTATION.items():
        assert (released.num_unused, released.architecture.num_classes == 150) == (("ade20k" in name),) * 2


def test_the_logits_are_those_of_outputs_1_to_150(ade20k_weights):
    name, whole = ade20k_weights
    loaded = load_model(weights_from=name)
    assert loaded.classes == ADE20K_CLASSES and list(loaded.palette) == ADE20K_PALETTE
    assert torch.equal(loaded.model.decoder.classifier.weight, whole.decoder.classifier.weight[1:])
    image = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        ours, theirs = loaded.model(image), whole.to(memory_format=torch.channels_last)(image)
    assert ours.shape == (1, 150, 65, 97) and theirs.abs().max() > 1
    # The convolution rounds in another order for another number of outputs
    assert (ours - theirs[:, 1:]).abs().max() < 1e-6 * theirs.abs().max()
    assert torch.equal(loaded.model.decoder.classifier.bias, whole.decoder.classifier.bias[1:])


def test_every_command_takes_them(ade20k_weights, ade20k_root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("utils.scoring.plots.plot_confusion", lambda *_: None)  # slow
    name, _ = ade20k_weights
    data = ["--dataset", "ade20k", "--data-root", str(ade20k_root)]
    command = ["--weights-from", name, *data, "--workers", "0", "--out", str(tmp_path / "scores")]
    assert evaluate.main(command) == 0
    assert list(json.loads((tmp_path / "scores/metrics.json").read_text())["per_class"]) == list(ADE20K_CLASSES)
    image = ade20k_root / "images/validation/ADE_val_00000001.jpg"
    result = predict.Segmenter(weights_from=name)(image)
    assert result.classes == ADE20K_CLASSES and result.labels.max() < 150
    out = tmp_path / "out"
    assert predict.main([str(image), "--weights-from", name, "--out", str(out), "--workers", "0"]) == 0
    assert np.array_equal(stored(out / f"{image.stem}.png"), result.labels)
    capsys.readouterr()
    flags = ["--weights-from", name, "--width", "0.25", "--max-steps", "1", "--no-val", "--lr", "1e-9"]
    status, folder = in_process(data, tmp_path / "run", *flags)
    assert status == 0 and "272 loaded, 0 missing, 0 unexpected, 0 mismatched" in capsys.readouterr().out
    state, (_, whole) = read_checkpoint(folder / "checkpoint.pth.tar"), ade20k_weights
    weight = state["state_dict"]["decoder.classifier.weight"]
    torch.testing.assert_close(weight, whole.decoder.classifier.weight[1:], rtol=0, atol=1e-5)
    assert state["classes"] == list(ADE20K_CLASSES)
