"""Released weights by name. docs/weights.md lists the segmentation networks with their published scores."""

import re
from dataclasses import dataclass
from pathlib import Path

from modeling.architecture import Architecture
from modeling.backbone import BACKBONES
from modeling.backbone.spec import TENSORFLOW_MODELS
from utils.download import fetch, unpack
from utils.errors import UserError
from utils.suggest import did_you_mean

# Beside each backbone's `imagenet`: MobileNetV2 trained with TensorFlow; Xception-65 trained on ImageNet, then COCO
BACKBONE_WEIGHTS = {
    "mobilenet_v2_imagenet": "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.0_224.tgz",
    "xception_65_imagenet_coco": f"{TENSORFLOW_MODELS}/xception_65_coco_pretrained_2018_10_02.tar.gz",
}


@dataclass(frozen=True)
class Released:
    """A released segmentation network: the address of its weights, and the architecture that they fill.

    The first `num_unused` outputs of the weights are no classes, and `architecture` does not have them.
    """

    url: str
    architecture: Architecture
    num_unused: int = 0


def google(archive: str, num_classes: int, backbone: str, head: str, *, num_unused: int = 0, **options) -> Released:
    architecture = Architecture(backbone=backbone, num_classes=num_classes, head=head, **options)
    return Released(f"{TENSORFLOW_MODELS}/{archive}.tar.gz", architecture, num_unused)


# Google's model zoo, by its names (tensorflow/models, research/deeplab/g3doc/model_zoo.md). Output 0 of the networks
# for ADE20K belongs to label 0, which is ignored in training and in scoring
SEGMENTATION = {
    "mobilenetv2_dm05_coco_voc_trainaug": google(
        "deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01", 21, "mobilenet", "lite", width=0.5
    ),
    "mobilenetv2_dm05_coco_voc_trainval": google(
        "deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01", 21, "mobilenet", "lite", width=0.5
    ),
    "mobilenetv2_coco_voc_trainaug": google("deeplabv3_mnv2_pascal_train_aug_2018_01_29", 21, "mobilenet", "lite"),
    "mobilenetv2_coco_voc_trainval": google("deeplabv3_mnv2_pascal_trainval_2018_01_29", 21, "mobilenet", "lite"),
    "xception65_coco_voc_trainaug": google("deeplabv3_pascal_train_aug_2018_01_04", 21, "xception", "separable"),
    "xception65_coco_voc_trainval": google("deeplabv3_pascal_trainval_2018_01_04", 21, "xception", "separable"),
    "mobilenetv2_coco_cityscapes_trainfine": google(
        "deeplabv3_mnv2_cityscapes_train_2018_02_05", 19, "mobilenet", "lite"
    ),
    "xception65_cityscapes_trainfine": google("deeplabv3_cityscapes_train_2018_02_06", 19, "xception", "separable"),
    "mobilenetv2_ade20k_train": google(
        "deeplabv3_mnv2_ade20k_train_2018_12_03", 150, "mobilenet", "lite-decoder", num_unused=1, wide_tap=True
    ),
    "xception65_ade20k_train": google(
        "deeplabv3_xception_ade20k_train_2018_05_29", 150, "xception", "separable", num_unused=1
    ),
}
CHECKPOINT_FILE = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")


def backbone_weights(name: str, backbone: str) -> Path | None:
    """The downloaded file or folder of the weights `name` for `backbone`; None if this file does not know the name.

    Raises UserError if there are no such weights, or if the download fails.
    """
    if name == "imagenet":
        url = BACKBONES[backbone].imagenet
        if url is None:
            raise UserError(f"`backbone_weights` imagenet does not exist for {backbone}: give none, or a file")
        return get(url)
    return get(BACKBONE_WEIGHTS[name]) if name in BACKBONE_WEIGHTS else None


def released(name: str) -> Released:
    """The segmentation network `name`. Raises UserError for an unknown name."""
    if name not in SEGMENTATION:
        choices = ", ".join(SEGMENTATION) + did_you_mean(name, SEGMENTATION)
        raise UserError(f"`weights_from` {name}: unknown; choose one of {choices}")
    return SEGMENTATION[name]


def get(url: str) -> Path:
    """The file at `url`, downloaded once; for an archive, the folder with its checkpoint."""
    path = fetch(url)
    return unpack(path, CHECKPOINT_FILE) if path.name.endswith((".tar.gz", ".tgz")) else path
