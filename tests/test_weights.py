"""Weights of every format: what loads is counted, what does not fit is said, what they expect travels along."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import evaluate
import train
from modeling import build_model, cost
from modeling import weights as weights_command
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


def test_a_whole_network_takes_a_backbone_file(classifier_file):
    model = build_model("mobilenet", 3)
    head = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("backbone.")}
    report = load_weights(model, classifier_file)
    assert all(name.startswith("backbone.") for name in report.loaded)
    assert set(report.missing) == {name for name in head if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in head.items())


def test_our_own_checkpoint_fills_a_backbone(tmp_path):
    source = build_model("drn22", 3)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "own.pth")
    model = build_model("drn22", 9, backbone_weights=str(tmp_path / "own.pth"))
    assert torch.equal(model.backbone.layer8[0].weight, source.backbone.layer8[0].weight)
    assert not torch.equal(model.aspp.project[0].weight, source.aspp.project[0].weight)


def test_weights_of_another_network_are_refused(classifier_file):
    with pytest.raises(UserError, match=r"does not fill the drn22 backbone .*missing.*`backbone_weights` none"):
        build_model("drn22", 3, backbone_weights=classifier_file)


def test_shapes_that_differ_are_listed(classifier_file):
    entries = torch.load(classifier_file)
    entries["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    entries["extra"] = torch.zeros(1)
    report = load_weights(build_model("mobilenet", 3).backbone, entries)
    assert report.mismatched == ["backbone.features.0.0.weight"] and report.unexpected == ["backbone.extra"]


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_one_line(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.pth cannot be read") as caught:
        build_model("mobilenet", 3, backbone_weights=str(tmp_path / "broken.pth"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_said():
    with pytest.raises(UserError, match=r"no file /nowhere/w\.pth"):
        build_model("mobilenet", 3, backbone_weights="/nowhere/w.pth")


def test_imagenet_weights_come_from_the_cache(monkeypatch, tmp_path):
    """torchvision's own names and file, without a download."""
    weights = torchvision.models.MobileNet_V2_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.save(state, tmp_path / "checkpoints" / weights.url.split("/")[-1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = build_model("mobilenet", 3, backbone_weights="imagenet")
    assert torch.equal(model.backbone.features[0][0].weight, state["features.0.0.weight"])


# What travels with weights


def tensorflow_variables(model) -> dict[str, np.ndarray]:
    """A TensorFlow checkpoint's variables with the values of `model`, by turning the rule of names around."""
    values = model.state_dict()
    wanted = {name: None for name in values if not name.endswith("num_batches_tracked")}
    stems = ["MobilenetV2/Conv", "image_pooling", "aspp0", "concat_projection"]
    for block in range(17):
        scope = f"MobilenetV2/expanded_conv{f'_{block}' if block else ''}"
        stems += [f"{scope}/{part}" for part in ("expand", "depthwise", "project")[block == 0 :]]
    leaves = [f"BatchNorm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]
    variables = {}
    for stem in stems:
        kernel = "depthwise_weights" if stem.endswith("depthwise") else "weights"
        for leaf in (kernel, *leaves):
            value = values[tensorflow_name(f"{stem}/{leaf}")]
            order = {"depthwise_weights": (2, 3, 0, 1), "weights": (2, 3, 1, 0)}.get(leaf)
            variables[f"{stem}/{leaf}"] = (value.permute(order) if order else value).numpy()
            wanted.pop(tensorflow_name(f"{stem}/{leaf}"))
    variables["logits/semantic/weights"] = values["decoder.classifier.weight"].permute(2, 3, 1, 0).numpy()
    variables["logits/semantic/biases"] = values["decoder.classifier.bias"].numpy()
    assert set(wanted) == {"decoder.classifier.weight", "decoder.classifier.bias"}
    return variables


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def table_block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block with shared beginnings and one restart point."""
    body, last = b"", b""
    for key, value in rows:
        shared = next((n for n, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return body + struct.pack("<II", 0, 1)


def write_tf_checkpoint(prefix: Path, variables: dict[str, np.ndarray], shards: int = 1) -> Path:
    """An independent writer of TensorFlow's tensor bundles, in small blocks."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data, rows = [b""] * shards, [(b"", field(1, shards))]
    for number, name in enumerate(sorted(variables)):
        value, shard = np.asarray(variables[name]), number % shards
        dims = b"".join(field(2, field(1, side)) for side in value.shape)
        entry = field(1, 9 if value.dtype == np.int64 else 1) + field(2, dims)
        entry += (field(3, shard) if shard else b"") + (field(4, len(data[shard])) if data[shard] else b"")
        rows.append((name.encode(), entry + field(5, value.nbytes)))
        data[shard] += np.ascontiguousarray(value).tobytes()
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    out, index = b"", []
    for start in range(0, len(rows), 7):
        block = table_block(rows[start : start + 7])
        index.append((rows[min(start + 6, len(rows) - 1)][0], varint(len(out)) + varint(len(block))))
        out += block + b"\0" + b"crc."
    places = []
    for block in (table_block([]), table_block(index)):
        places.append(varint(len(out)) + varint(len(block)))
        out += block + b"\0" + b"crc."
    footer = b"".join(places)
    Path(f"{prefix}.index").write_bytes(out + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"))
    return prefix


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


@pytest.mark.parametrize("harm", ["index cut", "index empty", "data cut", "data gone", "noise"])
def test_a_broken_tensorflow_checkpoint_is_one_line(tf_checkpoint, harm):
    prefix, _ = tf_checkpoint
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00001-of-00002")
    if harm == "index cut":
        index.write_bytes(index.read_bytes()[:-500])
    elif harm == "index empty":
        index.write_bytes(b"")
    elif harm == "data cut":
        data.write_bytes(data.read_bytes()[:-4])
    elif harm == "data gone":
        data.unlink()
    else:
        index.write_bytes(bytes(range(256)) * 20 + index.read_bytes()[-48:])
    with pytest.raises(UserError, match=r"is missing|cannot be read as a TensorFlow checkpoint") as caught:
        read_tf_checkpoint(prefix)
    assert str(prefix) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_what_weights_expect_is_set_and_saved(tf_checkpoint, tmp_path, capsys):
    """Normalization, epsilon and padding: set by load_weights, in the converted file, and in what is built from it."""
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


def test_padding_matters_on_even_sides_alone():
    torch.manual_seed(0)
    model = build_model("mobilenet", 2, head="lite", width=0.25).eval()
    for side, is_equal in ((65, True), (64, False)):
        image = torch.randn(1, 3, side, side)
        symmetric = model(image)
        model.expect(padding="same")
        assert torch.allclose(model(image), symmetric, atol=1e-6) is is_equal
        model.expect(padding="symmetric")
        assert torch.equal(model(image), symmetric)


def test_same_padding_is_tensorflows_rule():
    """Outputs are ceil(side / stride); the first window begins at 0 on even sides, at -1 on odd ones."""
    from modeling.layers import pad_strided_convolutions

    conv = torch.nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    conv.requires_grad_(False)
    conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    pad_strided_convolutions(conv, "same")
    for side in (6, 7):
        image = torch.randn(1, 1, side, side)
        first = -(side % 2)
        padded = torch.zeros(side + 3, side + 3)
        padded[1 : side + 1, 1 : side + 1] = image[0, 0]
        starts = [first + 1 + 2 * n for n in range(-(-side // 2))]
        expected = [[float((padded[y : y + 3, x : x + 3] * conv.weight[0, 0]).sum()) for x in starts] for y in starts]
        assert torch.allclose(conv(image)[0, 0], torch.tensor(expected), atol=1e-5)


# The formats by their names


def test_slots_and_step_are_left_out_and_strangers_are_shown():
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
def test_names_of_the_official_graph(theirs, ours):
    assert tensorflow_name(theirs) == ours


def test_a_prefix_of_parallel_training_is_taken_off():
    model = build_model("mobilenet", 2, head="lite", width=0.25)
    report = load_weights(model, {f"module.{name}": value for name, value in model.state_dict().items()})
    assert not report.faults()


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_order_and_rights_are_copied():
    model, other = (build_model("mobilenet", 2, head="lite", width=0.25) for _ in range(2))
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    name = "backbone.features.0.0.weight"
    arrays[name] = np.flip(np.flip(arrays[name], 0).copy(), 0)  # strides below 0
    arrays["decoder.classifier.weight"] = arrays["decoder.classifier.weight"].astype(">f4")
    for value in arrays.values():
        value.flags.writeable = False
    assert not load_weights(other, arrays).faults()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())


def test_the_averaged_weights_of_a_checkpoint_come_first():
    model = build_model("mobilenet", 2, head="lite", width=0.25)
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    load_weights(model, {"state_dict": model.state_dict(), "ema_state_dict": zeros})
    assert all(not value.any() for value in model.state_dict().values())


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"a": 1}, {"state_dict": [1]}, {"a": "text"}])
def test_what_holds_no_weights_is_refused(content):
    with pytest.raises(UserError, match="no weights in it"):
        load_weights(build_model("mobilenet", 2, width=0.25), content)


def test_the_known_mobilenet_and_xception_are_refused():
    for name in ("backbone.low_level_features.0.0.weight", "backbone.block20.rep.0.weight"):
        with pytest.raises(UserError, match=r"pads before its expansion .* train from `backbone_weights`"):
            translate({name: torch.zeros(1)})


# The commands


def test_weights_that_do_not_fill_are_refused_unless_partial(tmp_path, classifier_file, capsys):
    entries = torch.load(classifier_file)
    del entries["features.3.conv.2.weight"]
    torch.save(entries, tmp_path / "holes.pth")
    flags = ["--dataset", "demo", "--backbone-weights", str(tmp_path / "holes.pth"), "--run-dir", str(tmp_path / "run"),
             "--max-steps", "1", "--no-val", "--workers", "0", "--batch-size", "2", "--crop-size", "33"]  # fmt: skip
    assert train.main(flags) == 2
    assert re.search(r"does not fill the mobilenet backbone .*1 missing.*--partial-weights", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
    assert train.main([*flags, "--partial-weights"]) == 0
    assert "1 missing" in capsys.readouterr().out


def test_foreign_weights_train_on_and_keep_what_they_expect(tf_checkpoint, tmp_path, capsys):
    """--ft from a TensorFlow folder; other classes, so the classifier stays; then evaluate and resume."""
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


def test_evaluate_asks_what_weights_without_settings_are_of(tf_checkpoint, folder_root, capsys):
    prefix, _ = tf_checkpoint
    data = ["--dataset", "folder", "--data-root", str(folder_root), "--workers", "0"]
    command = ["--checkpoint", str(prefix), *data]
    assert evaluate.main(command) == 2
    assert "does not say which network it is of: give --backbone" in capsys.readouterr().err
    assert evaluate.main([*command, *MOBILENET]) == 2  # the width is missing
    assert "does not fill the mobilenet network" in capsys.readouterr().err
    assert evaluate.main([*command, *MOBILENET, "--width", "0.25", "--num-classes", "3"]) == 0
    assert "mIoU" in capsys.readouterr().out


def test_convert_reports_and_refuses(tf_checkpoint, classifier_file, tmp_path, capsys):
    prefix, _ = tf_checkpoint
    out = tmp_path / "out.pth"
    assert (
        weights_command.main([str(prefix), *MOBILENET, "--num-classes", "5", "--width", "0.25", "--out", str(out)]) == 2
    )
    said = capsys.readouterr()
    assert "mismatched decoder.classifier.weight" in said.out and "does not fill the network" in said.err
    assert weights_command.main([classifier_file, *MOBILENET, "--out", str(out)]) == 2
    assert "give --num-classes" in capsys.readouterr().err
    assert not out.exists()
    assert weights_command.main([classifier_file, *MOBILENET, "--num-classes", "4", "--out", str(out)]) == 0
    converted = read_checkpoint(out)
    assert converted["state_dict"]["decoder.classifier.weight"].shape[0] == 4
    assert all(name.startswith(("aspp.", "decoder.")) for name in converted["untrained"]) and converted["untrained"]


@pytest.mark.parametrize(
    ("main", "flags", "said"),
    [
        (weights_command.main, ["x", "--out", "y", "--backbone", "vgg"], "--backbone: invalid choice: 'vgg'"),
        (weights_command.main, ["x", "--out", "y", *MOBILENET, "--num-classes", "0"], "--num-classes: '0' is not"),
        (cost.main, ["--width", "0"], "--width: '0' is not a number above 0"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, main, flags, said):
    with pytest.raises(SystemExit, match="2"):
        main(flags)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: argument {said}")


def test_flags_that_contradict_a_checkpoint_are_refused(tmp_path, tf_checkpoint, capsys):
    prefix, _ = tf_checkpoint
    out = str(tmp_path / "own.pth")
    assert weights_command.main([str(prefix), *MOBILENET, "--width", "0.25", "--out", out]) == 0
    assert evaluate.main(["--checkpoint", out, "--dataset", "demo", "--backbone", "resnet"]) == 2
    assert "--backbone resnet contradicts" in capsys.readouterr().err


# By name


def test_every_released_network_can_be_built():
    for name, released in zoo.SEGMENTATION.items():
        with torch.device("meta"):
            model = build_model(num_classes=released.num_classes, **released.network)
        assert model.num_classes == released.num_classes, name


def test_an_unknown_name_is_said_with_the_choices(capsys):
    assert evaluate.main(["--weights-from", "resnet_secret", "--dataset", "demo"]) == 2
    assert "--weights-from resnet_secret: unknown; choose one of mobilenetv2_dm05" in capsys.readouterr().err
