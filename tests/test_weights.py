"""Weights of every format: names, layouts, reports, and the preprocessing that belongs to them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from tensorflow_data import tensorflow_variables, write_tf_checkpoint
from torch import nn

import evaluate
import train
from modeling import build_model
from modeling import weights as weights_command
from modeling.layers import SameConv2d, pad_strided_convolutions
from modeling.pretrained import zoo
from modeling.pretrained.names import translate
from modeling.pretrained.tf_checkpoint import find_prefix, read_tf_checkpoint
from modeling.pretrained.tf_names import convert_variables, tensorflow_name
from modeling.weights import load_weights
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint

MOBILENET = ("--backbone", "mobilenet", "--head", "lite")


@pytest.fixture
def classifier_file(tmp_path):
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), tmp_path / "classifier.pth")
    return str(tmp_path / "classifier.pth")


def test_a_classifier_fills_the_backbone(classifier_file, capsys):
    model = build_model("mobilenet", 3, backbone_weights=classifier_file)
    stored = torch.load(classifier_file)
    assert torch.equal(model.backbone.features[17].conv[2].weight, stored["features.17.conv.2.weight"])
    assert "0 missing" in capsys.readouterr().out


def test_backbone_weights_leave_the_head_as_it_is(classifier_file):
    model = build_model("mobilenet", 3)
    head = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    report = load_weights(model, classifier_file)
    assert all(name.startswith("backbone.") for name in report.loaded)
    assert set(report.missing) == {name for name in head if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in head.items())


def test_a_checkpoint_of_a_network_fills_a_backbone(tmp_path):
    source = build_model("drn22", 3)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "own.pth")
    model = build_model("drn22", 9, backbone_weights=str(tmp_path / "own.pth"))
    assert torch.equal(model.backbone.layer8[0].weight, source.backbone.layer8[0].weight)
    assert not torch.equal(model.aspp.project[0].weight, source.aspp.project[0].weight)


def test_backbone_weights_of_another_network_are_refused(classifier_file):
    with pytest.raises(UserError, match=r"does not fill the drn22 backbone .*missing.*`backbone_weights` none"):
        build_model("drn22", 3, backbone_weights=classifier_file)


def test_entries_that_do_not_fit_are_listed(classifier_file):
    entries = torch.load(classifier_file)
    entries["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    entries["extra"] = torch.zeros(1)
    report = load_weights(build_model("mobilenet", 3).backbone, entries)
    assert report.mismatched == ["backbone.features.0.0.weight"] and report.unexpected == ["backbone.extra"]


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_named_in_one_line(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.pth cannot be read") as caught:
        build_model("mobilenet", 3, backbone_weights=str(tmp_path / "broken.pth"))
    assert len(str(caught.value).splitlines()) == 1


# TensorFlow checkpoints, and the preprocessing of weights


@pytest.fixture
def tf_checkpoint(tmp_path):
    """(prefix, network) of a small MobileNet with three classes."""
    torch.manual_seed(1)
    model = build_model("mobilenet", 3, head="lite", width=0.25)
    extra = {"global_step": np.int64(30000), "MobilenetV2/Conv/weights/Momentum": np.ones((3, 3, 3, 8), np.float32)}
    prefix = tmp_path / "tf" / "model.ckpt-30000"
    return write_tf_checkpoint(prefix, tensorflow_variables(model) | extra, shards=2), model


def test_a_tensorflow_checkpoint_fills_the_network(tf_checkpoint):
    prefix, source = tf_checkpoint
    model = build_model("mobilenet", 3, head="lite", width=0.25)
    report = load_weights(model, prefix)
    assert not report.faults() and report.format == "TensorFlow"
    expected = {name: value for name, value in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())
    assert set(report.loaded) == set(expected)


def test_a_tensorflow_checkpoint_is_found_by_any_of_its_names(tf_checkpoint, monkeypatch):
    prefix, _ = tf_checkpoint
    other = write_tf_checkpoint(
        prefix.with_name("model.ckpt-99999"), {"logits/semantic/biases": np.zeros(2, np.float32)}
    )
    (prefix.parent / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    names = (str(prefix), f"{prefix}.index", f"{prefix}.data-00000-of-00002", str(prefix.parent))
    assert all(find_prefix(Path(name)) == prefix for name in names)
    monkeypatch.chdir(prefix.parent)
    assert find_prefix(Path()) == Path(prefix.name) and find_prefix(Path("/")) is None
    (prefix.parent / "checkpoint").unlink()
    assert find_prefix(prefix.parent) == other  # the newest
    assert find_prefix(prefix.parent.parent) is None


@pytest.mark.parametrize("damage", ["index cut", "index empty", "data cut", "data missing", "noise"])
def test_a_broken_tensorflow_checkpoint_is_named_in_one_line(tf_checkpoint, damage):
    prefix, _ = tf_checkpoint
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00001-of-00002")
    if damage == "index cut":
        index.write_bytes(index.read_bytes()[:-500])
    elif damage == "index empty":
        index.write_bytes(b"")
    elif damage == "data cut":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "data missing":
        data.unlink()
    else:
        index.write_bytes(bytes(range(256)) * 20 + index.read_bytes()[-48:])
    with pytest.raises(UserError, match=r"is missing|cannot be read as a TensorFlow checkpoint") as caught:
        read_tf_checkpoint(prefix)
    assert str(prefix) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_preprocessing_of_weights_is_set_converted_and_loaded(tf_checkpoint, tmp_path, capsys):
    """Mean, std, epsilon and padding: set by load_weights, stored in the converted file, and set again from it."""
    prefix, _ = tf_checkpoint
    model = build_model("mobilenet", 3, head="lite", width=0.25)
    before = model.preprocessing
    assert before == {
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "epsilon": {"backbone": 1e-5, "aspp": 1e-5},
        "padding": "symmetric",
    }  # fmt: skip
    load_weights(model, prefix)
    expected = {"mean": [0.5] * 3, "std": [0.5] * 3, "epsilon": {"backbone": 1e-3, "aspp": 1e-5}, "padding": "same"}
    assert model.preprocessing == expected
    out = tmp_path / "converted.pth"
    assert weights_command.main([str(prefix), *MOBILENET, "--width", "0.25", "--out", str(out)]) == 0
    assert "0 missing" in capsys.readouterr().out
    state = read_checkpoint(out)
    assert {name: state[name] for name in expected} == expected
    again = build_model("mobilenet", 3, head="lite", width=0.25)
    load_weights(again, out)
    assert again.preprocessing == expected
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.eval()(image), model.eval()(image))
    load_weights(again, torchvision_mobilenet(width=0.25), prefix="backbone.")
    assert again.preprocessing["mean"] == before["mean"] and again.preprocessing["padding"] == "symmetric"
    assert again.preprocessing["epsilon"] == before["epsilon"]


def torchvision_mobilenet(width: float) -> dict:
    """torchvision's names, with the channels that ours has at that width."""
    backbone = build_model("mobilenet", 2, width=width).backbone
    return {name: torch.zeros_like(value) for name, value in backbone.state_dict().items()}


def strided_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    return [conv for conv in convolutions if conv.stride != (1, 1) and conv.kernel_size != (1, 1)]


@torch.no_grad()
def test_epsilon_and_padding_are_set_in_a_backbone_alone(tf_checkpoint):
    prefix, _ = tf_checkpoint
    model = build_model("mobilenet", 3, head="lite", width=0.25)
    backbone = build_model("mobilenet", 3, head="lite", width=0.25).backbone
    load_weights(model, prefix)
    report = load_weights(backbone, prefix)
    assert not report.missing and not report.mismatched
    assert all(not name.startswith("backbone.") for name in report.unexpected) and report.unexpected
    norms = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.eps for layer in norms} == {1e-3}
    strided = strided_convolutions(backbone)
    assert len(strided) == 4 and all(type(conv) is SameConv2d for conv in strided)  # 4 at output stride 16
    image = torch.randn(1, 3, 64, 64)
    for ours, expected in zip(backbone.eval()(image), model.eval().backbone(image), strict=True):
        assert torch.equal(ours, expected)
    assert not load_weights(backbone, torchvision_mobilenet(width=0.25)).faults()
    assert {layer.eps for layer in norms} == {1e-5}
    assert all(type(conv) is nn.Conv2d for conv in strided_convolutions(backbone))


@torch.no_grad()
def test_a_checkpoint_sets_epsilon_and_padding_of_a_backbone_alone():
    model = build_model("mobilenet", 3, head="lite", width=0.25)
    model.configure(epsilon={"backbone": 1e-2, "aspp": 1e-4}, padding="same")
    backbone = build_model("mobilenet", 3, width=0.25).backbone
    load_weights(backbone, {"state_dict": model.state_dict()} | model.preprocessing)
    image = torch.randn(1, 3, 64, 64)
    for ours, expected in zip(backbone.eval()(image), model.eval().backbone(image), strict=True):
        assert torch.equal(ours, expected)


def test_padding_changes_the_output_on_even_sides_only():
    model = build_model("mobilenet", 2, head="lite", width=0.25).eval()
    parameters = dict(model.named_parameters())
    for side, is_equal in ((65, True), (64, False)):
        image = torch.randn(1, 3, side, side)
        symmetric = model(image)
        model.configure(padding="same")
        assert torch.allclose(model(image), symmetric, atol=1e-6) is is_equal
        model.configure(padding="symmetric")
        assert torch.equal(model(image), symmetric)
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())


def test_same_padding_is_tensorflows_rule():
    """The output has ceil(side / stride) rows; the first window begins at 0 on even sides, at -1 on odd ones."""
    conv = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    conv.requires_grad_(False)
    conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    layers = nn.Sequential(conv)
    pad_strided_convolutions(layers, "same")
    for side in (6, 7):
        image = torch.randn(1, 1, side, side)
        first = -(side % 2)
        padded = torch.zeros(side + 3, side + 3)
        padded[1 : side + 1, 1 : side + 1] = image[0, 0]
        starts = [first + 1 + 2 * n for n in range(-(-side // 2))]
        expected = [[float((padded[y : y + 3, x : x + 3] * conv.weight[0, 0]).sum()) for x in starts] for y in starts]
        assert torch.allclose(layers(image)[0, 0], torch.tensor(expected), atol=1e-5)


# Names and values of the formats


def test_training_variables_are_left_out_and_unknown_names_kept():
    variables = {
        "global_step": np.int64(1), "aspp0/weights": np.zeros((1, 1, 8, 4), np.float32),
        "aspp0/weights/Momentum": np.zeros((1, 1, 8, 4), np.float32), "dpc/weights": np.zeros(3, np.float32),
        "xception_65/logits/biases": np.zeros(1001, np.float32), "MobilenetV2/Logits/Conv2d_1c_1x1/biases": np.zeros(9),
    }  # fmt: skip
    entries = convert_variables(variables)
    assert set(entries) == {"aspp.branches.1.0.weight", "dpc/weights"}
    assert entries["aspp.branches.1.0.weight"].shape == (4, 8, 1, 1)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("xception_71/entry_flow/block5/unit_1/xception_module/separable_conv3_depthwise/depthwise_weights",
         "backbone.entry.4.convs.2.0.weight"),
        ("xception_65/middle_flow/block1/unit_16/xception_module/separable_conv1_pointwise/BatchNorm/beta",
         "backbone.middle.15.convs.0.3.bias"),
        ("xception_41/exit_flow/block1/unit_1/xception_module/shortcut/BatchNorm/moving_mean",
         "backbone.exit.shortcut.1.running_mean"),
        ("xception_41/exit_flow/block2/unit_1/xception_module/separable_conv2_pointwise/weights",
         "backbone.final.1.3.weight"),
        ("resnet_v1_101/conv1_3/BatchNorm/gamma", "backbone.stem.2.1.weight"),
        ("resnet_v1_50/block3/unit_6/bottleneck_v1/conv2/BatchNorm/beta", "backbone.layer3.5.bn2.bias"),
        ("resnet_v1_101/block4/unit_1/bottleneck_v1/shortcut/weights", "backbone.layer4.0.downsample.0.weight"),
        ("MobilenetV2/expanded_conv/project/weights", "backbone.features.1.conv.1.weight"),
        ("MobilenetV2/expanded_conv_16/project/BatchNorm/gamma", "backbone.features.17.conv.3.weight"),
        ("decoder/decoder_conv0/decoder_conv0_2/weights", "decoder.refine.1.0.weight"),
        ("aspp3/weights", "aspp.branches.4.0.weight"),
        ("logits/semantic/biases", "decoder.classifier.bias"),
        ("something/else/weights", "something/else/weights"),
    ],
)  # fmt: skip
def test_names_of_the_official_graph_are_translated(theirs, ours):
    assert tensorflow_name(theirs) == ours


def test_the_prefix_of_data_parallel_is_removed():
    model = build_model("mobilenet", 2, head="lite", width=0.25)
    report = load_weights(model, {f"module.{name}": value for name, value in model.state_dict().items()})
    assert not report.faults()


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_byte_order_and_stride_are_copied():
    model, other = (build_model("mobilenet", 2, head="lite", width=0.25) for _ in range(2))
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    name = "backbone.features.0.0.weight"
    arrays[name] = np.flip(np.flip(arrays[name], 0).copy(), 0)  # strides below 0
    arrays["decoder.classifier.weight"] = arrays["decoder.classifier.weight"].astype(">f4")
    for value in arrays.values():
        value.flags.writeable = False
    assert not load_weights(other, arrays).faults()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_averaged_weights_of_a_checkpoint_are_preferred():
    model = build_model("mobilenet", 2, head="lite", width=0.25)
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    load_weights(model, {"state_dict": model.state_dict(), "ema_state_dict": zeros})
    assert all(not value.any() for value in model.state_dict().values())


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"a": 1}, {"state_dict": [1]}, {"a": "text"}])
def test_content_without_weights_is_refused(content):
    with pytest.raises(UserError, match="no weights in it"):
        load_weights(build_model("mobilenet", 2, width=0.25), content)


def test_jfzhang95s_mobilenet_and_xception_are_refused():
    for name in ("backbone.low_level_features.0.0.weight", "backbone.block20.rep.0.weight"):
        with pytest.raises(UserError, match=r"pads before its expansion .* train from `backbone_weights`"):
            translate({name: torch.zeros(1)})


# The commands


def test_weights_that_do_not_fill_the_backbone_need_partial_weights(tmp_path, classifier_file, capsys):
    entries = torch.load(classifier_file)
    del entries["features.3.conv.2.weight"]
    weights = str(tmp_path / "partial.pth")
    torch.save(entries, weights)
    flags = ["--dataset", "demo", "--backbone-weights", weights, "--run-dir", str(tmp_path / "run"), "--max-steps",
             "1", "--no-val", "--workers", "0", "--batch-size", "2", "--crop-size", "33"]  # fmt: skip
    assert train.main(flags) == 2
    assert re.search(r"does not fill the mobilenet backbone .*1 missing.*--partial-weights", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
    assert train.main([*flags, "--partial-weights"]) == 0
    assert "1 missing" in capsys.readouterr().out


def test_training_keeps_the_preprocessing_of_its_initial_weights(tf_checkpoint, tmp_path, capsys):
    """--ft from a TensorFlow folder with other classes, so the classifier stays; then resume and evaluate."""
    prefix, _ = tf_checkpoint
    flags = ["--dataset", "demo", *MOBILENET, "--width", "0.25", "--run-dir", str(tmp_path / "run"),
             "--workers", "0", "--batch-size", "2", "--crop-size", "33", "--epochs", "1", "--no-val"]  # fmt: skip
    assert train.main([*flags, "--resume", str(prefix.parent), "--ft", "--max-steps", "1"]) == 0
    out = capsys.readouterr().out
    assert "270 loaded, 0 missing, 0 unexpected, 2 mismatched" in out and "decoder.classifier" in out
    checkpoint = next((tmp_path / "run").rglob("checkpoint.pth.tar"))
    state = read_checkpoint(checkpoint)
    assert state["padding"] == "same" and state["epsilon"]["backbone"] == 1e-3 and state["mean"] == [0.5] * 3
    assert state["config"]["width"] == 0.25
    assert train.main([*flags, "--resume", "auto", "--max-steps", "2"]) == 0
    assert read_checkpoint(checkpoint)["padding"] == "same"
    assert evaluate.main(["--checkpoint", str(checkpoint), "--workers", "0"]) == 0


def test_evaluate_needs_a_description_of_weights_without_config(tf_checkpoint, folder_root, capsys):
    prefix, _ = tf_checkpoint
    data = ["--dataset", "folder", "--data-root", str(folder_root), "--workers", "0"]
    command = ["--checkpoint", str(prefix), *data]
    assert evaluate.main(command) == 2
    assert "does not say which network it is of: give --backbone" in capsys.readouterr().err
    assert evaluate.main([*command, *MOBILENET]) == 2  # the width is missing
    assert "does not fill the mobilenet network" in capsys.readouterr().err
    assert evaluate.main([*command, *MOBILENET, "--width", "0.25", "--num-classes", "3"]) == 0
    assert "mIoU" in capsys.readouterr().out


def test_converting_reports_what_does_not_fit(tf_checkpoint, classifier_file, tmp_path, capsys):
    prefix, _ = tf_checkpoint
    out = tmp_path / "out.pth"
    assert (
        weights_command.main([str(prefix), *MOBILENET, "--num-classes", "5", "--width", "0.25", "--out", str(out)]) == 2
    )
    output = capsys.readouterr()
    assert "mismatched decoder.classifier.weight" in output.out and "does not fill the network" in output.err
    assert weights_command.main([classifier_file, *MOBILENET, "--out", str(out)]) == 2
    assert "give --num-classes" in capsys.readouterr().err
    assert not out.exists()
    assert weights_command.main([classifier_file, *MOBILENET, "--num-classes", "4", "--out", str(out)]) == 0
    converted = read_checkpoint(out)
    assert converted["state_dict"]["decoder.classifier.weight"].shape[0] == 4
    assert all(name.startswith(("aspp.", "decoder.")) for name in converted["untrained"]) and converted["untrained"]


# Weights by name


@pytest.mark.parametrize("name", zoo.SEGMENTATION)
def test_a_released_network_can_be_built(name):
    released = zoo.SEGMENTATION[name]
    with torch.device("meta"):
        model = released.architecture.build().eval()
    assert model.num_classes == released.architecture.num_classes in (19, 21, 150)
    assert model(torch.empty(1, 3, 65, 65, device="meta")).shape == (1, model.num_classes, 65, 65)
    assert re.fullmatch(r"http://download\.tensorflow\.org/models/deeplabv3_\w+\.tar\.gz", released.url)


def test_the_documents_list_every_name():
    text = (Path(__file__).parents[1] / "docs/weights.md").read_text()
    for name in (*zoo.SEGMENTATION, *zoo.BACKBONE_WEIGHTS):
        assert f"`{name}`" in text, name
