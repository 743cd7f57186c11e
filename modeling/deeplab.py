"""DeepLabV3+ (arXiv 1802.02611) of a backbone, ASPP and a decoder."""

from torch import Tensor, nn

from modeling.layers import resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DeepLab(nn.Module):
    """`image [B, 3, H, W] (normalised) -> logits [B, K, H, W]`, any H and W.

    `mean` and `std` (RGB, of values in 0..1) are what the weights expect of the picture; they travel with the network
    and into its checkpoints.
    """

    def __init__(self, backbone: nn.Module, aspp: nn.Module, decoder: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.decoder = decoder
        self.mean, self.std = IMAGENET_MEAN, IMAGENET_STD
        self.is_batch_norm_frozen = False

    def forward(self, image: Tensor) -> Tensor:
        low_level, features = self.backbone(image)
        logits = self.decoder(self.aspp(features), low_level)
        return resize(logits, image.shape[-2:])

    @property
    def output_stride(self) -> int:
        return self.backbone.output_stride

    @property
    def num_classes(self) -> int:
        return self.decoder.classifier.out_channels

    def batch_norms(self) -> list[nn.Module]:
        return [layer for layer in self.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]

    def freeze_batch_norm(self) -> None:
        """Statistics and affine stay as they are from here on, through every later `.train()`."""
        self.is_batch_norm_frozen = True
        for layer in self.batch_norms():
            layer.requires_grad_(False)
        self.train(self.training)

    def set_batch_norm_momentum(self, momentum: float) -> None:
        for layer in self.batch_norms():
            layer.momentum = momentum

    def train(self, mode: bool = True) -> "DeepLab":
        super().train(mode)
        if self.is_batch_norm_frozen:
            for layer in self.batch_norms():
                layer.eval()
        return self
