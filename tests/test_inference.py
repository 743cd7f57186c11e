"""From an image to scores of its size: whole, by windows, at several scales, mirrored."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from dataloaders.transforms import CenterCrop
from utils.errors import UserError
from utils.inference import Normalize, Predictor, sliding_window_logits, whole_image_logits, windows

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


class Recorder(nn.Module):
    def forward(self, image):
        self.seen = image
        return image


class Small(nn.Module):
    """A network that looks around each pixel and is not symmetric."""

    mean, std, output_stride = MEAN, STD, 16

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 5, 5, padding=2)

    def forward(self, image):
        return self.conv(image)


def picture(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(33, 65), (32, 66), (1, 500), (97, 98)])
def test_padding_is_right_and_bottom_with_the_mean(stride, size):
    model, image = Recorder(), picture(*size)
    logits = whole_image_logits(model, Normalize(MEAN, STD)(image), output_stride=stride)
    height, width = model.seen.shape[-2:]
    assert (height - 1) % stride == (width - 1) % stride == 0
    assert 0 <= height - size[0] < stride and 0 <= width - size[1] < stride
    expected = (image.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-5, atol=1e-5)
    outside = model.seen.clone()
    outside[..., : size[0], : size[1]] = 0
    assert (outside == 0).all()  # 0 is the mean color


def test_one_plain_scale_is_the_plain_score():
    model, image = Small(), picture(40, 51)
    plain = Predictor(model, torch.device("cpu"))(image)
    expected = whole_image_logits(model, Normalize(MEAN, STD)(image), output_stride=16)
    assert torch.equal(plain, expected)
    assert torch.equal(Predictor(model, torch.device("cpu"), scales=[1.0])(image), expected)
    torch.testing.assert_close(Predictor(model, torch.device("cpu")).probabilities(image), expected.softmax(1))


def test_scales_and_flips_average_the_softmax():
    """Against the same, written out: int((d - 1) * s + 1), corners aligned, flip before padding."""
    model, image = Small(), picture(40, 51)
    ours = Predictor(model, torch.device("cpu"), scales=[0.5, 1.75], flip=True)(image)
    start, parts = Normalize(MEAN, STD)(image), []
    for height, width in ((20, 26), (69, 88)):
        scaled = F.interpolate(start, size=(height, width), mode="bilinear", align_corners=True)
        for is_flipped in (False, True):
            view = torch.from_numpy(scaled.numpy()[..., ::-1].copy()) if is_flipped else scaled
            padded = F.pad(view, (0, -(width - 1) % 16, 0, -(height - 1) % 16))
            logits = model(padded)[..., :height, :width].detach().numpy()
            logits = torch.from_numpy((logits[..., ::-1] if is_flipped else logits).copy())
            parts.append(F.interpolate(logits, size=(40, 51), mode="bilinear", align_corners=True).double().softmax(1))
    torch.testing.assert_close(ours.double(), sum(parts) / 4, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.sum(1), torch.ones(1, 40, 51))


@pytest.mark.parametrize(
    ("side", "window", "stride"), [(100, 30, 20), (30, 30, 20), (29, 30, 7), (101, 30, 30), (1, 5, 1)]
)
def test_windows_cover_all_and_stay_inside(side, window, stride):
    parts = list(windows(side, window, stride))
    covered = np.zeros(side, int)
    for part in parts:
        assert 0 <= part.start < part.stop <= side and part.stop - part.start == min(window, side)
        covered[part] += 1
    assert covered.min() >= 1 and len({part.start for part in parts}) == len(parts)
    steps = np.diff([part.start for part in parts])
    assert (steps <= stride).all() and (steps[:-1] == stride).all()


def test_overlaps_are_averaged():
    model = Small()
    image = Normalize(MEAN, STD)(picture(33, 50))
    ours = sliding_window_logits(model, image, window=(33, 33), stride=(33, 17), output_stride=16)
    left, right = model(image[..., :33]), model(image[..., 17:])
    torch.testing.assert_close(ours[..., :17], left[..., :17])
    torch.testing.assert_close(ours[..., 33:], right[..., 16:])
    torch.testing.assert_close(ours[..., 17:33], (left[..., 17:] + right[..., :16]) / 2)


def test_a_window_as_large_as_the_picture_is_the_whole():
    model, image = Small(), picture(40, 51)
    whole = Predictor(model, torch.device("cpu"))(image)
    for window in ((40, 51), (400, 600)):
        assert torch.equal(Predictor(model, torch.device("cpu"), window=window, stride=(9, 9))(image), whole)


def test_the_center_crop_is_the_known_implementations():
    """Short side to the size, bilinear and nearest by Pillow, then the middle."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (60, 81, 3), dtype=np.uint8))
    label = Image.fromarray(random.integers(0, 9, (60, 81), dtype=np.uint8))
    ours, labels = CenterCrop(33)(image, label)
    assert ours.shape == (3, 33, 33) and labels.shape == (33, 33)
    left = round((int(81 * 33 / 60) - 33) / 2)
    expected = np.asarray(image.resize((44, 33), Image.Resampling.BILINEAR))[:, left : left + 33]
    assert np.array_equal(ours.permute(1, 2, 0).numpy(), expected)
    expected = np.asarray(label.resize((44, 33), Image.Resampling.NEAREST))[:, left : left + 33]
    assert np.array_equal(labels.numpy(), expected)


def test_an_unknown_padding_is_said():
    from modeling.layers import pad_strided_convolutions

    with pytest.raises(UserError, match="unknown padding 'valid': choose one of symmetric, same"):
        pad_strided_convolutions(nn.Conv2d(1, 1, 3, 2), "valid")
