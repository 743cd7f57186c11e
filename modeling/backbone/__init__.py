"""Backbones by name. A new one is a file in this folder and an entry in this table; timm/NAME needs none.

Their modules are imported on demand, as the names and limits are flags, which are read before torch is imported.
"""

from modeling.backbone.spec import TENSORFLOW_MODELS, Backbones, BackboneSpec

TORCHVISION = "https://download.pytorch.org/models"  # torchvision's weights
DRN = {"output_strides": (8, 16), "default_output_stride": 8}  # the paper's

BACKBONES = Backbones({
    "resnet": BackboneSpec(
        network="resnet.ResNet", depth=101, options=("multi_grid",), imagenet=f"{TORCHVISION}/resnet101-cd907fc2.pth"
    ),
    "resnet50": BackboneSpec(
        network="resnet.ResNet", depth=50, options=("multi_grid",), imagenet=f"{TORCHVISION}/resnet50-11ad3fa6.pth"
    ),
    "resnet_beta": BackboneSpec(
        network="resnet_beta.ResNetBeta", depth=101, options=("multi_grid",),
        imagenet=f"{TENSORFLOW_MODELS}/resnet_v1_101_2018_05_04.tar.gz",
    ),
    "resnet50_beta": BackboneSpec(
        network="resnet_beta.ResNetBeta", depth=50, options=("multi_grid",),
        imagenet=f"{TENSORFLOW_MODELS}/resnet_v1_50_2018_05_04.tar.gz",
    ),
    "xception": BackboneSpec(
        network="xception.Xception", depth=65, weight_decay=4e-5,
        imagenet=f"{TENSORFLOW_MODELS}/deeplabv3_xception_2018_01_04.tar.gz",
    ),
    "xception41": BackboneSpec(
        network="xception.Xception", depth=41, weight_decay=4e-5,
        imagenet=f"{TENSORFLOW_MODELS}/xception_41_2018_05_09.tar.gz",
    ),
    "xception71": BackboneSpec(
        network="xception.Xception", depth=71, weight_decay=4e-5,
        imagenet=f"{TENSORFLOW_MODELS}/xception_71_2018_05_09.tar.gz",
    ),
    "mobilenet": BackboneSpec(
        network="mobilenet.MobileNetV2", weight_decay=4e-5, options=("width", "wide_tap"),
        imagenet=f"{TORCHVISION}/mobilenet_v2-7ebf99e0.pth",
    ),
    "drn": BackboneSpec(network="drn.DRN", depth=54, imagenet="http://dl.yf.io/drn/drn_d_54-0e0534ff.pth", **DRN),
    "drn22": BackboneSpec(network="drn.DRN", depth=22, imagenet="http://dl.yf.io/drn/drn_d_22-4bd2f8ea.pth", **DRN),
    "drn38": BackboneSpec(network="drn.DRN", depth=38, imagenet="http://dl.yf.io/drn/drn_d_38-eebb45f0.pth", **DRN),
    "drn105": BackboneSpec(network="drn.DRN", depth=105, imagenet="http://dl.yf.io/drn/drn_d_105-12b40979.pth", **DRN),
})  # fmt: skip
