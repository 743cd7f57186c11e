"""The defaults of a training run: one block a dataset, and what --recipe changes. A flag on the command line wins.

V3+ is the paper, arXiv 1802.02611; V3 is arXiv 1706.05587, whose protocol it follows. "mmsegmentation" is its
configs/deeplabv3plus: ResNet-101 at stride 8 with batch norm over all GPUs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The flags whose default depends on the dataset."""

    backbone: str
    backbone_weights: str
    crop_size: tuple[int, ...]
    batch_size: int
    epochs: int
    lr: float
    head_lr_factor: float
    loss_type: str = "ce"
    class_uniform: float = 0.0


PASCAL = Recipe(
    backbone="resnet",
    backbone_weights="imagenet",  # V3+ 4: ImageNet-1k pretrained
    crop_size=(513,),  # V3+ 4
    batch_size=16,  # V3 4.1
    epochs=46,  # V3 4.1: 30,000 iterations of 16 over the 10,582 images of VOC and SBD
    lr=0.007,  # V3+ 4
    head_lr_factor=1.0,
)
CITYSCAPES = Recipe(
    backbone="resnet",
    backbone_weights="imagenet",
    crop_size=(769,),  # V3, appendix on Cityscapes
    batch_size=8,  # not published
    epochs=243,  # V3, appendix on Cityscapes: 90,000 iterations; 243 epochs are 90,153 of 8 over 2,975 images
    lr=0.007,  # V3+ 4
    head_lr_factor=1.0,
)
COCO = Recipe(
    backbone="resnet",
    backbone_weights="imagenet",
    crop_size=(513,),  # as VOC
    batch_size=16,  # as VOC
    epochs=30,  # not published
    lr=0.007,  # as VOC
    head_lr_factor=1.0,
)
ADE20K = Recipe(
    backbone="resnet",
    backbone_weights="imagenet",  # mmsegmentation; MosaicML's recipe takes the same weights of torchvision
    crop_size=(513,),  # Google's deeplab/g3doc/ade20k.md; mmsegmentation and MosaicML: 512
    batch_size=16,  # mmsegmentation
    epochs=64,  # mmsegmentation: 80,000 iterations (44.60 mIoU; 160,000: 45.47); 64 epochs are 80,832 of 16 over 20,210
    lr=0.01,  # mmsegmentation
    head_lr_factor=1.0,  # mmsegmentation
)
CONTEXT = Recipe(
    backbone="resnet",
    backbone_weights="imagenet",  # mmsegmentation
    crop_size=(481,),  # mmsegmentation: 480
    batch_size=16,  # mmsegmentation
    epochs=129,  # mmsegmentation: 40,000 iterations (52.86 mIoU; 80,000: 53.2); 129 epochs are 40,248 of 16 over 4,998
    lr=0.004,  # mmsegmentation
    head_lr_factor=1.0,  # mmsegmentation
)
DEMO = Recipe(  # found by trial on two CPU cores: docs/training.md
    backbone="mobilenet",
    backbone_weights="none",
    crop_size=(97,),
    batch_size=8,
    epochs=10,
    lr=0.05,
    head_lr_factor=1.0,
    loss_type="ce:1+lovasz:1",  # with class_uniform: 87.3 in place of 83.5, which took 12 epochs
    class_uniform=0.5,
)
OWN_DATA = Recipe(  # found by trial on CamVid, itself a dataset `folder`: docs/training.md
    backbone="resnet",
    backbone_weights="imagenet",
    crop_size=(513,),
    batch_size=8,
    epochs=50,
    lr=0.015,
    head_lr_factor=10.0,
)

# A dataset that is not in this table has OWN_DATA
RECIPES = {
    "pascal": PASCAL,
    "cityscapes": CITYSCAPES,
    "coco": COCO,
    "ade20k": ADE20K,
    "context": CONTEXT,
    "folder": OWN_DATA,
    "demo": DEMO,
}


@dataclass(frozen=True, kw_only=True)
class NamedRecipe:
    """A value of --recipe: defaults of further flags, and a share of the dataset's epochs. Flags that are given win."""

    flags: Mapping[str, object] = field(default_factory=dict)
    epoch_share: float = 1.0


# Gains: in points of val mIoU, by the lines alone, MobileNetV2 on CamVid in 270 steps (docs/recipes.md)
SHOWN_TO_HELP = {
    "loss_type": "ce:1+lovasz:1",  # Berman et al. 2018: +8.0
    "class_uniform": 0.5,  # Zhu et al. 2019, 78.32 -> 79.46 on Cityscapes: +2.8
    "optimizer": "adamw",  # Loshchilov and Hutter 2019, with the three lines below: +5.4
    "lr": 5e-4,
    "head_lr_factor": 4.0,
    "weight_decay": 0.01,  # PyTorch's default
}
NAMED = {
    "paper": NamedRecipe(),  # the block of the dataset, and the defaults of train.py --help
    "fast": NamedRecipe(flags=SHOWN_TO_HELP, epoch_share=0.5),
    "strong": NamedRecipe(flags=SHOWN_TO_HELP),
}
NAMES = tuple(field.name for field in fields(Recipe))


def recipe(dataset: str) -> Recipe:
    return RECIPES.get(dataset, OWN_DATA)


def default_help(name: str) -> str:
    """The default of a flag for `--help`, for each dataset where they differ."""
    values = {dataset: shown(getattr(block, name)) for dataset, block in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"(default: {values['pascal']})"
    return f"(default: {', '.join(f'{dataset} {value}' for dataset, value in values.items())})"


def shown(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
