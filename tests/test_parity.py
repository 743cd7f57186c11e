"""Through load_weights, our networks compute what published implementations do: see tests/parity/README.md."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from parity.fill import fill, make_image, read_manifests
from torch import Tensor, nn

from modeling import build_model
from modeling.weights import load_weights

PARITY = Path(__file__).with_name("parity")
OFFICIAL, JFZHANG95 = 1e-5, 1e-4  # of the largest value; of the standard deviation
MOBILENET = {"backbone": "mobilenet", "head": "lite", "wide_tap": True}  # the official `low` has 144 channels
NETWORKS = {  # name in the manifests: (arguments of build_model, reference outputs)
    "tf_xception_65": ({"backbone": "xception"}, "os16 os8 os16_even os16_big os8_big"),
    "tf_xception_41": ({"backbone": "xception41"}, "os16"),
    "tf_xception_71": ({"backbone": "xception71"}, "os16"),
    "tf_mobilenet_v2": (MOBILENET, "os16 os8 os16_even os16_loud"),
    "tf_mobilenet_v2_dm05": (MOBILENET | {"width": 0.5}, "os16 os8 os16_loud"),
    "tf_mobilenet_v2_decoder": (MOBILENET | {"head": "lite-decoder"}, "os16"),
    "tf_resnet_v1_101_beta": ({"backbone": "resnet_beta"}, "os16 os8 os16_even"),
    "tf_resnet_v1_101_beta_mg124": ({"backbone": "resnet_beta", "multi_grid": True}, "os16"),
    "tf_resnet_v1_101_beta_full": ({"backbone": "resnet_beta", "head": "standard"}, "os16"),
    "jfzhang95_resnet": ({"backbone": "resnet", "head": "standard", "multi_grid": True}, "os16 os8"),
    "jfzhang95_drn": ({"backbone": "drn", "head": "standard"}, "os8"),
}
manifests = cache(read_manifests)


def cases(slow: str) -> list:
    """Every network with every reference output; slow if the name contains one of the words in `slow`."""
    pairs = [(network, suffix) for network, (_, suffixes) in NETWORKS.items() for suffix in suffixes.split()]
    names = [f"{network}_{suffix}" for network, suffix in pairs]
    marks = [[pytest.mark.slow] if any(word in name for word in slow.split()) else [] for name in names]
    return [pytest.param(*pair, id=name, marks=mark) for pair, name, mark in zip(pairs, names, marks, strict=True)]


@pytest.fixture
def full_set(shared) -> Path:
    """The folder of the complete outputs, beside the project."""
    folder = shared / "parity"
    if not folder.is_dir():
        pytest.skip(f"no complete reference outputs: {folder} is not there")
    return folder


def filled_model(network: str, suffix: str, source: Path | None = None) -> nn.Module:
    """The network with the weights that its manifest and the fill rule give, or with those of `source`."""
    stride = 8 if suffix.startswith("os8") else 16
    model = build_model(num_classes=21, output_stride=stride, **NETWORKS[network][0])
    report = load_weights(model, source or fill(manifests()[network]))
    assert (report.format == "TensorFlow") == network.startswith("tf_") and not report.faults(), report
    return model.eval()


@torch.no_grad()
def outputs(model: nn.Module, image: Tensor, is_official: bool) -> dict[str, np.ndarray]:
    """What the reference outputs hold, by key, from one forward pass over image [1, 3, H, W]."""
    given = {}
    for part in (model.backbone, model.aspp, model.decoder):
        part.register_forward_hook(lambda module, _, output: given.update({module: output}))
    full = model(image)  # [1, 21, H, W]
    low, high = given[model.backbone]
    aspp, logits = given[model.aspp], given[model.decoder]  # of the output stride; before the last resize
    views = {
        "low": low[:, ::4, ::4, ::4], "high": high[:, ::8], "aspp": aspp[:, ::8], "aspp_s": aspp[:, ::16, ::2, ::2],
        "logits": logits if is_official else full[:, :, ::4, ::4], "logits_s4": logits[:, :, ::4, ::4],
        "logits_full": full[:, :, ::8, ::8],
    }  # fmt: skip
    return {key: view.numpy() for key, view in views.items()}


def check(model: nn.Module, file: Path, name: str, record_property) -> None:
    """All outputs in `file` are within the limit; conftest prints the margins at the end of the tests."""
    with np.load(file) as content:
        arrays = {key: value for key, value in content.items() if value.ndim}
        settings = {"gain": 1, "step": 1} | {key: value.item() for key, value in content.items() if not value.ndim}
    image = settings["gain"] * make_image(settings["h"], settings["w"], settings["seed"])
    is_official, step = name.startswith("tf_"), settings["step"]
    limit = OFFICIAL if is_official else JFZHANG95
    ours, margins = outputs(model, image, is_official), {}
    for key, expected in arrays.items():
        error = np.abs(ours[key].ravel()[::step] - expected.ravel()).max()
        margins[key] = error / (np.abs(expected).max() if is_official else expected.std())
    text = ", ".join(f"{key} {value:.1e}" for key, value in margins.items())
    record_property("margins", f"{name}, {f'1 of {step}' if step > 1 else 'all'} values: {text} (limit {limit:.0e})")
    assert margins and all(margin < limit for margin in margins.values()), text


@pytest.mark.parametrize(("network", "suffix"), cases(slow="os8_big"))
def test_outputs_equal_the_references(network, suffix, record_property):
    file = PARITY / f"reference_{network}_{suffix}.npz"
    check(filled_model(network, suffix), file, f"{network} {suffix}", record_property)


@pytest.mark.parametrize(("network", "suffix"), cases(slow="xception resnet drn"))
def test_outputs_equal_the_complete_references(full_set, network, suffix, record_property):
    file = full_set / f"reference_{network.replace('jfzhang95', 'ancestor')}_{suffix}.npz"
    check(filled_model(network, suffix), file, f"{network} {suffix}", record_property)


def test_a_checkpoint_written_by_tensorflow_gives_the_filled_weights(full_set):
    """Bit for bit; the Momentum slots and the step in the file are not loaded."""
    model = filled_model("tf_mobilenet_v2_dm05", "os16", source=full_set / "tf_mnv2_dm05")
    expected = filled_model("tf_mobilenet_v2_dm05", "os16")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.state_dict().items())
    image = make_image(96, 128, seed=13)
    assert torch.equal(model(image), expected(image))  # epsilon and padding are the same too


def test_jfzhang95s_mobilenet_is_refused():
    with pytest.raises(ValueError, match="MobileNet pads before its expansion"):
        load_weights(build_model("mobilenet", 21, head="standard"), fill(manifests()["jfzhang95_mobilenet"]))
