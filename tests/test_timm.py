"""Backbones of timm: maps and weights against timm's own networks, normalization, errors, and a run from them."""

import functools
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from running import error_line, in_process
from torch import nn

import evaluate
from modeling import Architecture, build_model
from modeling.batch_norm import sync_batch_norm
from modeling.layers import pad_strided_convolutions
from modeling.publish import main as publish
from modeling.segmenter import Segmenter
from utils.errors import UserError
from utils.optim import parameter_groups

timm = pytest.importorskip("timm", reason="no timm: pip install -r requirements-dev.txt")
FIVE = ("resnet50d", "resnetv2_50", "regnety_040", "efficientnet_b3", "convnext_tiny")
SMALL = ("test_convnext", "test_resnet", "test_efficientnet")


def slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def sides(feature_map, stride):
    return [-(-side // stride) for side in feature_map]


@pytest.mark.parametrize("name", [SMALL[0], *slow(FIVE)])
def test_sizes_of_maps_and_one_state_dict_for_every_stride(name):
    shapes = []
    for stride in (8, 32) if name in FIVE else (8, 16, 32):  # the step below is at 16
        with torch.device("meta"):
            model = build_model(f"timm/{name}", 4, output_stride=stride).eval()
            for size in ((97, 130),) if name in FIVE else ((97, 130), (1, 33)):
                image = torch.empty(1, 3, *size)
                low_level, features = model.backbone(image)
                assert low_level.shape == (1, model.backbone.low_level_channels, *sides(size, 4))
                assert features.shape == (1, model.backbone.out_channels, *sides(size, stride))
                assert model(image).shape == (1, 4, *size)
        shapes.append({key: value.shape for key, value in model.state_dict().items()})
    assert all(other == shapes[0] for other in shapes)


def test_patches_are_centered_on_the_pixels_of_align_corners():
    backbone = build_model("timm/test_convnext", 2).backbone.eval()
    image = torch.randn(1, 3, 65, 33)
    maps = backbone.body(F.pad(image, (8, 7, 8, 7)))  # patch i at stride 16 is centered on pixel 16i - 0.5
    low_level, features = backbone(image)
    assert torch.equal(features, maps[-1]) and features.shape[-2:] == (5, 3)
    assert torch.equal(low_level, maps[0][..., 2:19, 2:11])


@pytest.mark.parametrize("name", [SMALL[0], *slow(SMALL[1:])])
def test_a_file_of_timm_gives_its_maps(name, tmp_path):
    theirs = timm.create_model(name).eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    model = build_model(f"timm/{name}", 3, output_stride=32, backbone_weights=str(tmp_path / "theirs.pth")).eval()
    assert model.mean == theirs.pretrained_cfg["mean"] and model.std == theirs.pretrained_cfg["std"]
    assert list(model.preprocessing["mean"]) == list(model.mean)
    image = torch.randn(1, 3, 64, 96)
    expected = theirs.forward_intermediates(image, intermediates_only=True)[-1]
    assert torch.allclose(model.backbone(image)[1], expected, atol=1e-5)


def test_weights_that_do_not_fill_the_network_are_named(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"1 missing.*backbone\.body\.layer1\.0\.conv1\.weight"):
        build_model("timm/test_resnet", 3, backbone_weights=str(tmp_path / "part.pth"))


def test_imagenet_is_what_timm_loads(tmp_path, monkeypatch, capsys):
    theirs = timm.create_model("test_convnext").eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    create = timm.create_model
    local = {"file": str(tmp_path / "theirs.pth")}
    monkeypatch.setattr(timm, "create_model", functools.partial(create, pretrained_cfg_overlay=local))
    model = build_model("timm/test_convnext", 3, backbone_weights="imagenet")
    assert torch.equal(model.backbone.body.stem_0.weight, theirs.stem[0].weight)
    assert "0 missing, 0 unexpected, 0 mismatched" in capsys.readouterr().out
    (tmp_path / "theirs.pth").unlink()
    with pytest.raises(UserError, match=r"timm has not got the weights of test_convnext \(.*`backbone_weights` a file"):
        build_model("timm/test_convnext", 3, backbone_weights="imagenet")


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("test_resnett", 16, "has no network 'test_resnett'.*did you mean test_resnet?"),
        ("vgg11", 16, "timm/vgg11 gives no features at output stride 16.*give another `out_stride`"),
        ("vit_tiny_patch16_224", 16, "gives no features at output stride 16 .TypeError"),
        pytest.param("inception_v4", 32, "timm/inception_v4 does not pad", marks=pytest.mark.slow),
    ],
)
def test_networks_that_do_not_fit_are_one_line(name, stride, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        build_model(f"timm/{name}", 2, output_stride=stride)


def test_without_timm_one_line_says_how_to_install_it(monkeypatch):
    architecture = Architecture(backbone="timm/resnet50d", num_classes=2)  # flags are read without it
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"`backbone` timm/resnet50d needs timm: pip install timm"):
        architecture.build()


def test_synchronized_batch_norm_keeps_the_activations_of_timm():
    model = build_model("timm/test_efficientnet", 2).eval()
    image = torch.randn(1, 3, 33, 33)
    expected = model(image)
    converted = sync_batch_norm(model, None, torch.device("cuda"), 2)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in converted.modules())
    assert torch.equal(converted.eval()(image), expected)


def test_timms_own_padding_stays():
    with torch.device("meta"):
        backbone = build_model("timm/tf_mobilenetv3_small_minimal_100", 2).backbone
    before = [type(layer) for layer in backbone.modules()]
    assert "Conv2dSame" in {kind.__name__ for kind in before}
    pad_strided_convolutions(backbone, "symmetric")
    assert [type(layer) for layer in backbone.modules()] == before


def test_norms_biases_and_depthwise_weights_of_timm_are_not_decayed():
    model = build_model("timm/test_convnext", 2)
    groups = parameter_groups(model, model.backbone, lr=1, head_lr_factor=10, weight_decay=1e-4)
    plain = {id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]}
    for name, parameter in model.backbone.named_parameters():
        is_plain = parameter.ndim == 1 or ".conv_dw." in name
        assert (id(parameter) in plain) == is_plain, name


@pytest.mark.slow
def test_a_run_is_resumed_and_scored(tmp_path, folder_root, capsys):
    data = ("--dataset", "folder", "--data-root", str(folder_root))
    flags = ("--backbone", "timm/test_convnext", "--epochs", "1", "--freeze-bn", "--channels-last")
    status, whole = in_process(data, tmp_path / "a", *flags)
    assert status == 0
    assert in_process(data, tmp_path / "b", *flags, "--max-steps", "1", "--no-val")[0] == 0
    status, resumed = in_process(data, tmp_path / "b", *flags, "--resume", "auto")
    assert status == 0
    one, two = (torch.load(folder / "checkpoint.pth.tar", weights_only=True) for folder in (whole, resumed))
    assert one["mean"] == [0.5, 0.5, 0.5] and one["config"]["backbone"] == "timm/test_convnext"
    assert all(torch.equal(value, two["state_dict"][key]) for key, value in one["state_dict"].items())
    best = str(whole / "model_best.pth.tar")
    assert evaluate.main(["--checkpoint", best, *data, "--workers", "0", "--out", str(tmp_path / "scores")]) == 0
    scores = json.loads((tmp_path / "scores/metrics.json").read_text())
    assert scores["miou"] == pytest.approx(torch.load(best, weights_only=True)["best_pred"])
    assert publish(["--checkpoint", best, "--out", str(tmp_path / "published")]) == 0
    description = json.loads((tmp_path / "published/config.json").read_text())
    assert all("--backbone timm/test_convnext" in line for line in description["config"]["commands"])
    assert Segmenter(str(tmp_path / "published"))(torch.zeros(3, 20, 31, dtype=torch.uint8)).labels.shape == (20, 31)
    assert in_process(data, tmp_path / "c", *flags, "--backbone", "timm/no_such")[0] == 2
    assert "has no network 'no_such'" in error_line(capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
def test_the_five_of_the_documents_train_a_step(name):
    model = build_model(f"timm/{name}", 5).to(memory_format=torch.channels_last).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 65, 50).contiguous(memory_format=torch.channels_last))
    assert logits.shape == (2, 5, 65, 50)
    logits.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
