"""Weights from files: what loads is counted, what does not fit is said."""

import pytest
import torch
import torchvision

from errors import UserError
from modeling import build_model
from modeling.weights import load_weights


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
    with pytest.raises(UserError, match=r"does not fill the drn22 backbone .*missing.*--backbone-weights none"):
        build_model("drn22", 3, backbone_weights=classifier_file)


def test_shapes_that_differ_are_listed(classifier_file):
    entries = torch.load(classifier_file)
    entries["features.0.0.weight"] = torch.zeros(16, 3, 3, 3)
    entries["extra"] = torch.zeros(1)
    report = load_weights(build_model("mobilenet", 3).backbone, entries)
    assert report.mismatched == ["features.0.0.weight"] and report.unexpected == ["extra"]


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short"])
def test_a_broken_file_is_one_line(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.pth cannot be read") as caught:
        build_model("mobilenet", 3, backbone_weights=str(tmp_path / "broken.pth"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_is_said():
    with pytest.raises(UserError, match=r"no file /nowhere/w\.pth"):
        build_model("mobilenet", 3, backbone_weights="/nowhere/w.pth")


def test_offline_says_where_to_put_the_file(monkeypatch, tmp_path):
    def refuse(*_arguments, **_more):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"cannot download https://.*mobilenet_v2.*put the file at .*none"):
        build_model("mobilenet", 3, backbone_weights="imagenet")


def test_imagenet_weights_come_from_the_cache(monkeypatch, tmp_path):
    """torchvision's own names and file, without a download."""
    weights = torchvision.models.MobileNet_V2_Weights.DEFAULT
    (tmp_path / "checkpoints").mkdir()
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    torch.save(state, tmp_path / "checkpoints" / weights.url.split("/")[-1])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    model = build_model("mobilenet", 3, backbone_weights="imagenet")
    assert torch.equal(model.backbone.features[0][0].weight, state["features.0.0.weight"])
