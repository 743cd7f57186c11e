"""Backbones by name. A new one is a file in this folder and a line in this table."""

from modeling.backbone import drn, mobilenet, resnet, resnet_beta, xception
from modeling.backbone.spec import BackboneSpec

BACKBONES: dict[str, BackboneSpec] = {
    **resnet.BACKBONES,
    **resnet_beta.BACKBONES,
    **xception.BACKBONES,
    **mobilenet.BACKBONES,
    **drn.BACKBONES,
}
