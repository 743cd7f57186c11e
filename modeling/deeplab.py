"""DeepLabV3+ (arXiv 1802.02611) of a backbone, ASPP and a decoder."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from modeling.layers import batch_norms, pad_strided_convolutions, set_epsilon
from utils.geometry import resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DeepLab(nn.Module):
    """`image [B, 3, H, W] (normalized) -> logits [B, K, H, W]`, any H and W.

    `backbone` is what a `BackboneSpec` builds. The network also holds the preprocessing that its weights were trained
    with: `mean` and `std` of the image (RGB, values in 0..1), and see `preprocessing`.
    """

    def __init__(self, backbone: nn.Module, aspp: nn.Module, decoder: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.aspp = aspp
        self.decoder = decoder
        self.mean = getattr(backbone, "mean", IMAGENET_MEAN)
        self.std = getattr(backbone, "std", IMAGENET_STD)
        self.padding = "symmetric"
        self.is_batch_norm_frozen = False

    def forward(self, image: Tensor, *, upsample: bool = True) -> Tensor:
        """Without `upsample`, [B, K, H/4, W/4]: scoring upsamples in strips of rows."""
        logits = self.low_resolution_logits(image).float()  # [B, K, H/4, W/4]
        if not upsample:
            return logits
        return resize(logits, image.shape[-2:])  # [B, K, H, W]; in bf16 1 label of 300 would change

    def low_resolution_logits(self, image: Tensor) -> Tensor:
        """Logits before the last upsampling: `[B, 3, H, W] -> [B, K, H/4, W/4]`, at output stride for head lite."""
        low_level, features = self.backbone(image)  # [B, C, H/4, W/4], [B, C, H/output_stride, W/output_stride]
        return self.decoder(self.aspp(features), low_level)

    @property
    def output_stride(self) -> int:
        return self.backbone.output_stride

    @property
    def num_classes(self) -> int:
        return self.decoder.classifier.out_channels

    @property
    def preprocessing(self) -> dict:
        """Plain values for a checkpoint: `mean`, `std`, `epsilon` of the batch norms in backbone, aspp and decoder (of
        those parts where all have the same), `padding` of the backbone's strided convolutions (symmetric or same).
        """
        norms = {name: batch_norms(part) for name, part in self.named_children()}
        values = {name: {layer.eps for layer in layers} for name, layers in norms.items()}
        epsilon = {name: found.pop() for name, found in values.items() if len(found) == 1}
        return {"mean": list(self.mean), "std": list(self.std), "epsilon": epsilon, "padding": self.padding}

    def configure(
        self,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        epsilon: Mapping[str, float] | None = None,
        padding: str | None = None,
    ) -> None:
        """Set the given entries of `preprocessing` in place."""
        self.mean, self.std = tuple(mean or self.mean), tuple(std or self.std)
        for part, value in (epsilon or {}).items():
            set_epsilon(self.get_submodule(part), value)
        if padding is not None:
            self.padding = padding
            pad_strided_convolutions(self.backbone, padding)

    def freeze_batch_norm(self) -> None:
        """Stop updating statistics, weight and bias of batch norm, also after a later `.train()`."""
        self.is_batch_norm_frozen = True
        for layer in batch_norms(self):
            layer.requires_grad_(False)
        self.train(self.training)

    def set_batch_norm_momentum(self, momentum: float) -> None:
        for layer in batch_norms(self):
            layer.momentum = momentum

    def train(self, mode: bool = True) -> "DeepLab":
        super().train(mode)
        if self.is_batch_norm_frozen:
            for layer in batch_norms(self):
                layer.eval()
        return self


class LowResolutionLogits(nn.Module):
    """`model` without the upsampling of its logits, which a loss does in less memory: image -> [B, K, H/4, W/4]."""

    def __init__(self, model: DeepLab):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image, upsample=False)
