"""Weights by name: published addresses. The segmentation networks and their scores are listed in docs/weights.md."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from torchvision.models import MobileNet_V2_Weights, ResNet50_Weights, ResNet101_Weights

from errors import UserError
from utils.download import fetch, unpack

TENSORFLOW = "http://download.tensorflow.org/models"
DRN = "http://dl.yf.io/drn"

# `--backbone-weights imagenet`: backbone -> address
IMAGENET = {
    "resnet": ResNet101_Weights.DEFAULT.url,
    "resnet50": ResNet50_Weights.DEFAULT.url,
    "mobilenet": MobileNet_V2_Weights.DEFAULT.url,
    "xception": f"{TENSORFLOW}/deeplabv3_xception_2018_01_04.tar.gz",
    "xception41": f"{TENSORFLOW}/xception_41_2018_05_09.tar.gz",
    "xception71": f"{TENSORFLOW}/xception_71_2018_05_09.tar.gz",
    "resnet_beta": f"{TENSORFLOW}/resnet_v1_101_2018_05_04.tar.gz",
    "resnet50_beta": f"{TENSORFLOW}/resnet_v1_50_2018_05_04.tar.gz",
    "drn": f"{DRN}/drn_d_54-0e0534ff.pth",
    "drn22": f"{DRN}/drn_d_22-4bd2f8ea.pth",
    "drn38": f"{DRN}/drn_d_38-eebb45f0.pth",
    "drn105": f"{DRN}/drn_d_105-12b40979.pth",
}
# `--backbone-weights NAME`: further ones. MobileNetV2 as TensorFlow trained it; Xception-65 pretrained on COCO too
BACKBONES = {
    "mobilenet_v2_imagenet": "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.0_224.tgz",
    "xception_65_imagenet_coco": f"{TENSORFLOW}/xception_65_coco_pretrained_2018_10_02.tar.gz",
}


@dataclass(frozen=True)
class Released:
    """A segmentation network: its address, the classes it knows, and how to build it (the flags' names)."""

    url: str
    num_classes: int
    network: dict = field(default_factory=dict)


MOBILENET = {"backbone": "mobilenet", "head": "lite"}
MOBILENET_HALF = MOBILENET | {"width": 0.5}
MOBILENET_DECODER = {"backbone": "mobilenet", "head": "lite-decoder", "wide_tap": True}
XCEPTION = {"backbone": "xception", "head": "separable"}
# `--weights-from NAME`: Google's model zoo (tensorflow/models, research/deeplab/g3doc/model_zoo.md), under its names
SEGMENTATION = {
    "mobilenetv2_dm05_coco_voc_trainaug": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz", 21, MOBILENET_HALF
    ),
    "mobilenetv2_dm05_coco_voc_trainval": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01.tar.gz", 21, MOBILENET_HALF
    ),
    "mobilenetv2_coco_voc_trainaug": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz", 21, MOBILENET
    ),
    "mobilenetv2_coco_voc_trainval": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz", 21, MOBILENET
    ),
    "xception65_coco_voc_trainaug": Released(
        f"{TENSORFLOW}/deeplabv3_pascal_train_aug_2018_01_04.tar.gz", 21, XCEPTION
    ),
    "xception65_coco_voc_trainval": Released(f"{TENSORFLOW}/deeplabv3_pascal_trainval_2018_01_04.tar.gz", 21, XCEPTION),
    "mobilenetv2_coco_cityscapes_trainfine": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz", 19, MOBILENET
    ),
    "xception65_cityscapes_trainfine": Released(
        f"{TENSORFLOW}/deeplabv3_cityscapes_train_2018_02_06.tar.gz", 19, XCEPTION
    ),
    "mobilenetv2_ade20k_train": Released(
        f"{TENSORFLOW}/deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz", 151, MOBILENET_DECODER
    ),
    "xception65_ade20k_train": Released(
        f"{TENSORFLOW}/deeplabv3_xception_ade20k_train_2018_05_29.tar.gz", 151, XCEPTION
    ),
}
CHECKPOINT_FILE = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")


def backbone_weights(name: str, backbone: str) -> Path | None:
    """The file or folder behind `--backbone-weights name`; None where the name is none of ours (a FILE).

    Raises UserError where there are no such weights, or they cannot be had.
    """
    if name == "imagenet":
        if backbone not in IMAGENET:
            raise UserError(f"--backbone-weights imagenet: there are none for {backbone}: give none, or FILE")
        return get(IMAGENET[backbone])
    return get(BACKBONES[name]) if name in BACKBONES else None


def released(name: str) -> Released:
    if name not in SEGMENTATION:
        raise UserError(f"--weights-from {name}: unknown; choose one of {', '.join(SEGMENTATION)}")
    return SEGMENTATION[name]


def get(url: str) -> Path:
    """The downloaded file, or the folder of a downloaded archive's checkpoint."""
    path = fetch(url)
    return unpack(path, CHECKPOINT_FILE) if path.name.endswith((".tar.gz", ".tgz")) else path
