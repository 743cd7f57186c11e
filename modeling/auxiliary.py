"""A second head for training alone: it gives the backbone a shorter way to the loss (Zhao et al., arXiv 1612.01105)."""

from torch import Tensor, nn

from modeling.decoder import make_classifier
from modeling.deeplab import DeepLab
from modeling.layers import ConvBNReLU, batch_norms, initialize


class FCNHead(nn.Sequential):
    """`features [B, C, h, w] -> logits [B, K, h, w]`: 3x3 convolution to C/4 channels, dropout, 1x1 convolution."""

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float):
        width = in_channels // 4
        super().__init__(ConvBNReLU(in_channels, width, 3), nn.Dropout2d(dropout), make_classifier(width, num_classes))
        initialize(self[0])


class WithAuxiliary(nn.Module):
    """`model` and a second head on the features that ASPP takes. Its weights are no part of `model`.

    `image [B, 3, H, W] (normalized) -> (logits [B, K, H/4, W/4], second logits [B, K, h, w])`, h = H/output_stride
    """

    def __init__(self, model: DeepLab, *, dropout: float = 0.1):
        super().__init__()
        self.model = model
        self.auxiliary = FCNHead(model.backbone.out_channels, model.num_classes, dropout=dropout)
        if model.is_batch_norm_frozen:
            for layer in batch_norms(self.auxiliary):
                layer.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        low_level, features = self.model.backbone(image)
        logits = self.model.decoder(self.model.aspp(features), low_level)
        return logits, self.auxiliary(features)

    def train(self, mode: bool = True) -> "WithAuxiliary":
        super().train(mode)
        if self.model.is_batch_norm_frozen:
            for layer in batch_norms(self.auxiliary):
                layer.eval()
        return self
