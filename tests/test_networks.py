"""The networks: costs against published numbers, maps against torchvision's, atrous rates, and properties of all."""

import pytest
import torch
import torchvision
from torch import nn

from modeling import BACKBONES, HEADS, Architecture, build_model
from modeling.aspp import ASPP
from modeling.cost import cost, main
from modeling.layers import atrous_plan, dilate
from modeling.weights import load_weights

# backbone, head, stride, parameters, multiply-accumulates / 1e9 at 513x513 and 21 classes
PUBLISHED = [
    ("xception", "separable", 16, 41_055_413, 54.04),
    ("xception", "separable", 8, 41_055_413, 176.85),
    ("xception", "standard", 16, 54_711_461, 86.68),
    ("xception", "standard", 8, 54_711_461, 248.78),
    ("xception41", "separable", 16, 28_108_661, 40.01),
    ("xception71", "separable", 16, 43_477_837, None),
    ("resnet", "standard", 16, 59_344_309, 92.82),
    ("resnet", "standard", 8, 59_344_309, 267.92),
    ("resnet50", "standard", 16, 40_352_181, 72.19),
    ("resnet50", "standard", 8, 40_352_181, 187.90),
    ("mobilenet", "standard", 16, 5_816_053, None),
    ("mobilenet", "lite", 16, 2_113_557, 2.741),
    ("drn", "standard", 8, 40_737_061, 192.06),
]
STRIDES = [(name, stride) for name, spec in BACKBONES.items() for stride in spec.output_strides]


@pytest.mark.parametrize(("backbone", "head", "stride", "parameters", "gmacs"), PUBLISHED)
def test_cost_is_as_published(backbone, head, stride, parameters, gmacs):
    architecture = Architecture(backbone=backbone, num_classes=21, output_stride=stride, head=head)
    counted, macs = cost(architecture, size=(513, 513))
    assert counted == parameters
    if gmacs is not None:
        assert macs / 1e9 == pytest.approx(gmacs, abs=0.0051)


@pytest.mark.parametrize(
    ("backbone", "parameters", "gmacs"), [("xception", 41_054_899, 418.38), ("xception71", 43_477_323, 513.04)]
)
def test_cost_of_cityscapes_networks(backbone, parameters, gmacs):
    counted, macs = cost(Architecture(backbone=backbone, num_classes=19), size=(1025, 2049))
    assert counted == parameters and macs / 1e9 == pytest.approx(gmacs, abs=0.0051)


def test_cost_command_prints_a_row_for_each_network(capsys):
    assert main(["--backbone", "xception", "resnet50", "--head", "separable", "--out-stride", "16", "8"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert len(rows) == 4
    assert "41,055,413" in rows[0] and "54.04" in rows[0] and "176.85" in rows[1]
    assert main(["--backbone", "mobilenet", "--head", "lite", "--width", "0.5", "--wide-tap"]) == 0
    assert "697,013" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("backbone", "stride"), [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] == 32)) for case in STRIDES]
)
@pytest.mark.parametrize("size", [513, pytest.param(512, marks=pytest.mark.slow)])
def test_sizes_of_maps_and_logits(backbone, stride, size):
    with torch.device("meta"):
        model = build_model(backbone, 7, output_stride=stride)
        low_level, features = model.backbone(torch.empty(1, 3, size, size))
        assert low_level.shape == (1, model.backbone.low_level_channels, *[-(-size // 4)] * 2)
        assert features.shape == (1, model.backbone.out_channels, *[-(-size // stride)] * 2)
        assert model.output_stride == stride
        assert model(torch.empty(2, 3, size, size - 100)).shape == (2, 7, size, size - 100)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [*[(name, "separable") for name in BACKBONES], *[("mobilenet", head) for head in HEADS if head != "separable"]],
)
def test_one_state_dict_fits_every_output_stride(backbone, head):
    with torch.device("meta"):
        shapes = [
            {k: v.shape for k, v in build_model(backbone, 5, output_stride=s, head=head).state_dict().items()}
            for s in BACKBONES[backbone].output_strides
        ]
    assert all(other == shapes[0] for other in shapes)


def rates(model: nn.Module) -> list[int]:
    return [layer.dilation[0] for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1]


@pytest.mark.parametrize(
    ("stride", "expected"),
    [(16, [1] * 14 + [2] * 3), (8, [1] * 7 + [2] * 7 + [4] * 3), (32, [1] * 17)],
)
def test_mobilenet_rates(stride, expected):
    with torch.device("meta"):
        assert rates(build_model("mobilenet", 2, output_stride=stride).backbone) == [1, *expected]  # the stem first


@pytest.mark.parametrize(
    ("stride", "entry3", "middle", "exit1", "exit2"), [(32, 1, 1, 1, 1), (16, 1, 1, 1, 2), (8, 1, 2, 2, 4)]
)
def test_xception_rates(stride, entry3, middle, exit1, exit2):
    with torch.device("meta"):
        backbone = build_model("xception", 2, output_stride=stride).backbone
    assert set(rates(backbone.entry[2])) == {entry3}
    assert {rate for block in backbone.middle for rate in rates(block)} == {middle}
    assert set(rates(backbone.exit)) == {exit1}
    assert set(rates(backbone.final)) == {exit2}


def test_resnet_rates_and_multi_grid():
    with torch.device("meta"):
        at_8 = build_model("resnet50", 2, output_stride=8).backbone
        at_16 = build_model("resnet50", 2, output_stride=16, multi_grid=True).backbone
    layer4 = [unit.conv2.dilation[0] for unit in at_16.layer4]
    assert layer4 == [2, 4, 8]
    assert {unit.conv2.dilation[0] for unit in at_8.layer3} == {2}
    assert {unit.conv2.dilation[0] for unit in at_8.layer4} == {4}


def test_drn_halves_its_rates_at_stride_16():
    with torch.device("meta"):
        networks = [build_model("drn", 2, output_stride=stride).backbone for stride in (8, 16)]
    for name in ("layer5", "layer6", "layer7"):
        eight, sixteen = (set(rates(getattr(network, name))) for network in networks)
        assert {rate // 2 for rate in eight} == sixteen, name
    assert networks[1].layer5[0].conv2.stride == (2, 2)


def test_a_unit_that_loses_its_stride_keeps_the_old_rate():
    assert atrous_plan([2, 2, 2, 1, 2, 1], 16) == [(2, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    assert atrous_plan([2, 2, 2, 1, 2, 1], 8) == [(2, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 4)]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_aspp_reaches_the_same_pixels_at_every_stride(stride):
    with torch.device("meta"):
        branches = build_model("resnet50", 2, output_stride=stride, head="standard").aspp.branches
    assert [branch[0].dilation[0] * stride for branch in branches[2:]] == [96, 192, 288]


def test_resnet_computes_torchvisions_maps_at_stride_32():
    theirs = torchvision.models.resnet50(weights=None).eval()
    ours = build_model("resnet50", 2, output_stride=32).backbone.eval()
    report = load_weights(ours, theirs.state_dict())
    assert not report.faults()
    image = torch.randn(1, 3, 65, 97)
    expected = torchvision.models._utils.IntermediateLayerGetter(theirs, {"layer1": "low", "layer4": "high"})(image)
    low_level, features = ours(image)
    assert torch.equal(low_level, expected["low"]) and torch.equal(features, expected["high"])


def test_mobilenet_computes_torchvisions_maps_at_stride_32():
    theirs = torchvision.models.mobilenet_v2(weights=None).eval()
    ours = build_model("mobilenet", 2, output_stride=32).backbone.eval()
    report = load_weights(ours, theirs.state_dict())
    assert not report.faults()
    image = torch.randn(1, 3, 65, 97)
    low_level, features = ours(image)
    assert torch.equal(low_level, theirs.features[:4](image))
    assert torch.equal(features, theirs.features[:18](image))


@pytest.mark.parametrize("backbone", ["resnet50", "drn22"])
def test_a_finer_output_stride_keeps_the_coarser_map(backbone):
    """At positions of the coarser map, removing a stride and dilating the layers after it changes nothing."""
    coarse, fine = {"resnet50": (32, 16), "drn22": (16, 8)}[backbone]
    one = build_model(backbone, 2, output_stride=coarse).backbone.eval()
    two = build_model(backbone, 2, output_stride=fine).backbone.eval()
    two.load_state_dict(one.state_dict())
    if backbone == "resnet50":  # the unit that loses its stride has the new rate: undo that
        dilate(two.layer4[0].conv2, 1)
    else:  # the same, and layer8 has rate 1 at both strides
        dilate(two.layer5[0].conv1, 1)
        one.layer8 = two.layer8 = nn.Identity()
    image = torch.randn(1, 3, 129, 161)
    expected, features = one(image)[1], two(image)[1][..., ::2, ::2]
    assert features.shape == expected.shape
    assert (features - expected).abs().max() < 1e-4 * expected.std()


def test_xception_shortcut_takes_its_input_before_the_relu():
    with torch.no_grad():
        block = build_model("xception41", 2).backbone.middle[0].eval()
        for conv in block.convs:
            conv[2].weight.zero_()  # the convolutions give 0: the output is the shortcut
        features = torch.randn(1, 728, 5, 5)
        assert torch.equal(block(features.clone())[0], features)


def test_xception_epsilons():
    model = build_model("xception41", 2)
    assert {layer.eps for layer in model.backbone.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-3}
    assert {layer.eps for layer in model.aspp.modules() if isinstance(layer, nn.BatchNorm2d)} == {1e-5}


def test_image_pooling_is_constant_over_the_map():
    pooling = build_model("mobilenet", 2).aspp.branches[0].eval()
    pooled = pooling(torch.randn(1, 320, 4, 6))
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))


def test_atrous_weights_over_padding_stay_0():
    """On a 9x9 map, the outer eight weights of rates 12 and 18 multiply padding only: training does not change them."""
    aspp = ASPP(8, rates=(6, 12, 18), is_separable=True, dropout=0.0)
    optimizer = torch.optim.SGD(aspp.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        aspp(torch.randn(2, 8, 9, 9)).square().mean().backward()
        optimizer.step()
    outer = torch.ones(3, 3, dtype=torch.bool)
    outer[1, 1] = False
    moved = [bool((branch[0].weight[..., outer] != 0).any()) for branch in aspp.branches[2:]]
    assert moved == [True, False, False]


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [
        pytest.param(name, stride, marks=() if name in ("mobilenet", "drn22") else pytest.mark.slow)
        for name, stride in STRIDES
        if stride < 32
    ],
)
def test_every_backbone_trains_a_step(backbone, stride):
    model = build_model(backbone, 5, output_stride=stride).train()
    logits = model(torch.randn(2, 3, 97, 129))
    assert logits.shape == (2, 5, 97, 129)
    nn.functional.cross_entropy(logits, torch.randint(0, 5, (2, 97, 129))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
