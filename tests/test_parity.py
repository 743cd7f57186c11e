"""Through load_weights, our networks compute what published implementations do: shared/parity."""

import numpy as np
import pytest
import torch

from modeling import build_model
from modeling.weights import load_weights

OFFICIAL, KNOWN = 1e-5, 1e-4  # of the largest value; of the standard deviation
MOBILENET = dict(backbone="mobilenet", head="lite", wide_tap=True)  # `low` is the tap of 144 channels


@pytest.fixture
def parity(shared, monkeypatch):
    """(folder, its fill module, its fill_tf module)."""
    folder = shared / "parity"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs: {folder} is not there")
    monkeypatch.syspath_prepend(str(folder))
    import fill
    import fill_tf

    return folder, fill, fill_tf


def outputs(model, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        low, high = model.eval().backbone(image)
        aspp = model.aspp(high)
        return {"low": low, "high": high, "aspp": aspp, "logits": model.decoder(aspp, low), "full": model(image)}


def check(record_property, name: str, margins: dict[str, float], limit: float) -> None:
    """Below the limit; conftest prints the margins at the end of the tests."""
    text = ", ".join(f"{key} {value:.1e}" for key, value in margins.items())
    record_property("margins", f"{name}: {text} (limit {limit:.0e})")
    assert margins and max(margins.values()) < limit


def compare_official(parity, record_property, variant: str, suffix: str, network: dict, source=None) -> None:
    folder, fill, fill_tf = parity
    model = build_model(num_classes=21, **network)
    report = load_weights(model, source or fill_tf.fill_tf(str(folder / f"manifest_tf_{variant}.json")))
    assert report.format == "TensorFlow" and not report.faults(), report
    with np.load(folder / f"reference_tf_{variant}_{suffix}.npz") as reference:
        gain = float(reference["gain"]) if "gain" in reference else 1.0
        ours = outputs(model, gain * fill.image(int(reference["h"]), int(reference["w"]), seed=int(reference["seed"])))
        views = {
            "low": ours["low"][:, ::4, ::4, ::4], "high": ours["high"][:, ::8], "aspp": ours["aspp"][:, ::8],
            "aspp_s": ours["aspp"][:, ::16, ::2, ::2], "logits": ours["logits"],
            "logits_s4": ours["logits"][:, :, ::4, ::4], "logits_full": ours["full"][:, :, ::8, ::8],
        }  # fmt: skip
        pairs = {key: (view.numpy(), reference[key]) for key, view in views.items() if key in reference}
    check(
        record_property,
        f"{variant} {suffix}",
        {k: np.abs(a - b).max() / np.abs(b).max() for k, (a, b) in pairs.items()},
        OFFICIAL,
    )


@pytest.mark.parametrize("suffix", ["os16", "os8", "os16_even", "os16_loud"])
def test_mobilenet_is_the_official_one(parity, record_property, suffix):
    network = MOBILENET | {"output_stride": 8 if "os8" in suffix else 16}
    compare_official(parity, record_property, "mobilenet_v2", suffix, network)


@pytest.mark.parametrize("suffix", ["os16", "os8", "os16_loud"])
def test_half_a_mobilenet_from_a_real_tensorflow_checkpoint(parity, record_property, suffix):
    network = MOBILENET | {"output_stride": 8 if "os8" in suffix else 16, "width": 0.5}
    compare_official(parity, record_property, "mobilenet_v2_dm05", suffix, network, source=parity[0] / "tf_mnv2_dm05")


def test_mobilenet_with_the_decoder(parity, record_property):
    compare_official(parity, record_property, "mobilenet_v2_decoder", "os16", MOBILENET | {"head": "lite-decoder"})


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["os16", "os8", "os16_even", "os16_big", "os8_big"])
def test_xception_65_is_the_official_one(parity, record_property, suffix):
    network = {"backbone": "xception", "output_stride": 8 if "os8" in suffix else 16}
    compare_official(parity, record_property, "xception_65", suffix, network)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [41, 71])
def test_the_other_xceptions_are_the_official_ones(parity, record_property, depth):
    compare_official(parity, record_property, f"xception_{depth}", "os16", {"backbone": f"xception{depth}"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "suffix", "network"),
    [
        ("resnet_v1_101_beta", "os16", {}),
        ("resnet_v1_101_beta", "os16_even", {}),
        ("resnet_v1_101_beta", "os8", {"output_stride": 8}),
        ("resnet_v1_101_beta_mg124", "os16", {"multi_grid": True}),
        ("resnet_v1_101_beta_full", "os16", {"head": "standard"}),
    ],
)
def test_the_papers_resnet_is_the_official_one(parity, record_property, variant, suffix, network):
    compare_official(parity, record_property, variant, suffix, {"backbone": "resnet_beta"} | network)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "stride", "is_multi_grid"), [("resnet", 16, True), ("resnet", 8, True), ("drn", 8, False)]
)
def test_the_known_implementations_networks(parity, record_property, variant, stride, is_multi_grid):
    folder, fill, _ = parity
    model = build_model(variant, 21, output_stride=stride, head="standard", multi_grid=is_multi_grid)
    report = load_weights(
        model, {"state_dict": fill.fill(str(folder / f"manifest_ancestor_{variant}.json")), "epoch": 1}
    )
    assert report.format == "known implementation" and not report.faults()
    with np.load(folder / f"reference_ancestor_{variant}_os{stride}.npz") as reference:
        ours = outputs(model, fill.image(int(reference["h"]), int(reference["w"]), seed=int(reference["seed"])))
        views = {
            "low": ours["low"][:, ::4, ::4, ::4], "high": ours["high"][:, ::8], "logits": ours["full"][:, :, ::4, ::4]
        }  # fmt: skip
        margins = {k: np.abs(view.numpy() - reference[k]).max() / reference[k].std() for k, view in views.items()}
    check(record_property, f"known {variant} os{stride}", margins, KNOWN)


def test_the_known_mobilenet_is_refused(parity):
    folder, fill, _ = parity
    with pytest.raises(ValueError, match="MobileNet pads before its expansion"):
        load_weights(
            build_model("mobilenet", 21, head="standard"),
            {"state_dict": fill.fill(str(folder / "manifest_ancestor_mobilenet.json"))},
        )


def test_the_real_checkpoint_holds_what_the_rule_says(parity):
    """Our reader gives every variable bit for bit, and training's extra ones with their shapes."""
    import json

    from modeling.pretrained.tf_checkpoint import find_prefix, read_tf_checkpoint

    folder, _, fill_tf = parity
    variables = read_tf_checkpoint(find_prefix(folder / "tf_mnv2_dm05"))
    extra = json.loads((folder / "tf_mnv2_dm05/extra_variables.json").read_text())
    expected = fill_tf.fill_tf(str(folder / "manifest_tf_mobilenet_v2_dm05.json"))
    assert set(variables) == set(expected) | set(extra)
    assert all(np.array_equal(variables[name], value) for name, value in expected.items())
    assert all(list(variables[name].shape) == shape for name, shape in extra.items())
