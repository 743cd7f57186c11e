"""The default protocol: the whole picture in one forward pass, padded where the geometry asks for it."""

import pytest
import torch
from torch import nn

from utils.inference import Normalise, whole_image_logits


class Recorder(nn.Module):
    def forward(self, image):
        self.seen = image
        return image


MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(33, 65), (32, 66), (1, 500), (97, 98)])
def test_padding_is_right_and_bottom_with_the_mean(stride, size):
    model, image = Recorder(), torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    logits = whole_image_logits(model, image, normalise=Normalise(MEAN, STD), output_stride=stride)
    height, width = model.seen.shape[-2:]
    assert (height - 1) % stride == (width - 1) % stride == 0
    assert 0 <= height - size[0] < stride and 0 <= width - size[1] < stride
    expected = (image.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-5, atol=1e-5)
    outside = model.seen.clone()
    outside[..., : size[0], : size[1]] = 0
    assert (outside == 0).all()  # 0 is the mean colour
