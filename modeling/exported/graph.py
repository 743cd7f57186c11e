"""The network with everything around it that the default protocol needs (docs/scoring.md), as one module to export."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.deeplab import DeepLab
from utils.inference import Normalize

EXAMPLE_SIZE = (70, 83)  # neither equal sides nor k * stride + 1: the exporter takes nothing for a rule


class InferenceGraph(nn.Module):
    """`uint8 RGB [B, 3, H, W] -> logits float32 [B, K, H, W]`, or with `output` "labels" `uint8 [B, H, W]`.

    As `utils.inference.whole_image_logits` of a normalized image: padded right and bottom with the mean color to
    k * output_stride + 1, one forward pass, cut back. With `half` a copy of the network computes in float16.
    """

    def __init__(self, model: DeepLab, *, output: str = "logits", half: bool = False):
        super().__init__()
        self.model = copy.deepcopy(model).half() if half else model
        self.dtype = torch.float16 if half else torch.float32
        self.output, self.output_stride = output, model.output_stride
        normalize = Normalize(model.mean, model.std)
        self.register_buffer("mean", normalize.mean)
        self.register_buffer("std", normalize.std)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        # As whole_image_logits pads, without the remainder of a negative number, which PyTorch 2.6 does not trace
        stride = self.output_stride
        down, right = ((side + stride - 2) // stride * stride + 1 - side for side in (height, width))
        normalized = ((image - self.mean) / self.std).to(self.dtype)
        logits = self.model(F.pad(normalized, (0, right, 0, down)))
        cut = (0, -right, 0, -down)  # a slice would add the condition that there is something to cut
        if self.output == "labels":
            return F.pad(logits.argmax(1, keepdim=True).to(torch.uint8), cut)[:, 0]
        return F.pad(logits, cut)


def trace(graph: InferenceGraph, size: Sequence[int] | None = None) -> torch.export.ExportedProgram:
    """The program of `graph`, for any batch size, and for any height and width unless `size` gives them."""
    example = torch.zeros(2, 3, *(size or EXAMPLE_SIZE), dtype=torch.uint8)
    dynamic = torch.export.Dim.DYNAMIC
    shape = {0: dynamic} if size else {0: dynamic, 2: dynamic, 3: dynamic}
    with torch.no_grad():
        return torch.export.export(graph.eval(), (example,), dynamic_shapes=(shape,), strict=False)
