"""`Architecture`: what it builds, its form in checkpoints of this and older versions, and what it refuses."""

import json

import pytest
import torch

from config.train_flags import train_parser
from modeling import BACKBONES, HEADS, Architecture, build_model
from utils.errors import UserError

ARCHITECTURES = [
    Architecture(backbone="resnet50", num_classes=21),
    Architecture(backbone="resnet50", num_classes=4, output_stride=8, head="standard", multi_grid=True, dropout=0.5),
    Architecture(backbone="mobilenet", num_classes=3, output_stride=32, head="lite", width=0.5, wide_tap=True),
    Architecture(backbone="mobilenet", num_classes=2, head="lite-decoder", width=0.25, wide_tap=True, dropout=0.0),
    Architecture(backbone="drn22", num_classes=7),
]
CONFIG = {"backbone", "out_stride", "head", "multi_grid", "width", "wide_tap", "dropout"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_config_of_a_checkpoint_gives_the_same_architecture(architecture):
    config = json.loads(json.dumps(architecture.to_config()))
    assert set(config) == CONFIG
    assert Architecture.from_config(config, num_classes=architecture.num_classes) == architecture


def test_keys_of_the_config_are_flags_of_train():
    flags = vars(train_parser().parse_args(["--backbone", "mobilenet", "--width", "0.5", "--out-stride", "8"]))
    assert set(flags) >= CONFIG
    expected = Architecture(backbone="mobilenet", num_classes=3, output_stride=8, width=0.5)
    assert Architecture.from_config(flags, num_classes=3) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # All flags that shape a network, as versions before `Architecture` wrote them, among other flags
        ({"backbone": "resnet50", "out_stride": 8, "head": "standard", "multi_grid": True, "width": 1.0,
          "wide_tap": False, "dropout": 0.3, "dataset": "pascal", "lr": 0.007, "crop_size": [513, 513]},
         {"backbone": "resnet50", "output_stride": 8, "head": "standard", "multi_grid": True, "dropout": 0.3}),
        # Older ones without some of them
        ({"backbone": "mobilenet", "out_stride": 16, "head": "lite", "width": 0.5},
         {"backbone": "mobilenet", "head": "lite", "width": 0.5}),
        ({"backbone": "mobilenet", "wide_tap": True}, {"backbone": "mobilenet", "wide_tap": True}),
        ({"backbone": "drn"}, {"backbone": "drn", "output_stride": 8}),
        ({"backbone": "xception", "out_stride": None}, {"backbone": "xception", "output_stride": 16}),
    ],
)  # fmt: skip
def test_configs_of_older_versions_are_read(config, expected):
    assert Architecture.from_config(config, num_classes=5) == Architecture(num_classes=5, **expected)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_output_stride_defaults_to_that_of_the_backbone(backbone):
    spec = BACKBONES[backbone]
    assert Architecture(backbone=backbone, num_classes=2).output_stride == spec.default_output_stride
    assert spec.default_output_stride in spec.output_strides


REFUSED = [
    ({"backbone": "vgg"}, "unknown backbone 'vgg': choose one of resnet"),
    ({"head": "big"}, "unknown head 'big': choose one of separable"),
    ({"backbone": "drn", "output_stride": 32}, "drn has no output stride 32: choose one of 8, 16"),
    ({"output_stride": 0}, "resnet50 has no output stride 0: choose one of 8, 16, 32"),
    ({"backbone": "drn22", "multi_grid": True}, "`multi_grid` is defined for resnet, resnet50, resnet_beta"),
    ({"backbone": "mobilenet", "multi_grid": True}, "leave it out for mobilenet"),
    ({"width": 0.5}, "`width` is defined for mobilenet alone: leave it out for resnet50"),
    (
        {"backbone": "xception", "wide_tap": True},
        "`wide_tap` is defined for mobilenet alone: leave it out for xception",
    ),
]


@pytest.mark.parametrize(("options", "text"), REFUSED)
def test_what_a_backbone_does_not_have_is_refused_in_one_line(options, text):
    options = {"backbone": "resnet50", "num_classes": 2} | options
    config = {"out_stride" if name == "output_stride" else name: value for name, value in options.items()}
    for build in (lambda: Architecture(**options), lambda: Architecture.from_config(config, num_classes=2),
                  lambda: build_model(**options)):  # fmt: skip
        with pytest.raises(UserError) as caught:
            build()
        assert text in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="atrous"):
        Architecture(backbone="resnet50", num_classes=2, atrous=True)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head", HEADS)
def test_build_gives_every_head_the_fields_of_the_architecture(architecture, head):
    fields = vars(architecture) | {"head": head}
    with torch.device("meta"):
        model = Architecture(**fields).build()
        same = build_model(**fields)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in same.state_dict().items()}
    assert model.num_classes == architecture.num_classes and model.output_stride == architecture.output_stride
    assert model.aspp.dropout.p == same.aspp.dropout.p == architecture.dropout
    assert len(model.aspp.branches) == (2 if head.startswith("lite") else 5)
    assert ("decoder.refine.0.0.weight" in shapes) == (head != "lite")
    assert (shapes["aspp.project.0.weight"][1] // 256) == len(model.aspp.branches)


def test_options_reach_the_backbone():
    def backbone(**options):
        with torch.device("meta"):
            return Architecture(num_classes=2, **options).build().backbone

    assert [unit.conv2.dilation[0] for unit in backbone(backbone="resnet50", multi_grid=True).layer4] == [2, 4, 8]
    assert backbone(backbone="mobilenet").low_level_channels == 24
    assert backbone(backbone="mobilenet", wide_tap=True).low_level_channels == 144
    assert backbone(backbone="mobilenet", width=0.5).out_channels == 160
