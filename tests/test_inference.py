"""From an image to scores of its size: whole, in windows, at several scales, mirrored."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from dataloaders.transforms import CenterCrop
from modeling.layers import pad_strided_convolutions
from utils.errors import UserError
from utils.inference import Normalize, Predictor, sliding_window_logits, whole_image_logits, windows

MEAN, STD = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)


class Recorder(nn.Module):
    """Returns its input, and keeps it."""

    def forward(self, image):
        self.image = image
        return image


class Positional(nn.Module):
    """Its output depends on the position in its input, so on the window that a pixel is in."""

    def forward(self, image):
        rows, columns = (torch.arange(side, dtype=image.dtype) for side in image.shape[-2:])
        return torch.cat([image * (1 + rows[:, None]), image - columns**2], dim=1)


class Small(nn.Module):
    """One 5x5 convolution: not symmetric under flips."""

    mean, std, output_stride = MEAN, STD, 16

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 5, 5, padding=2)

    def forward(self, image):
        return self.conv(image)


def random_image(*size: int) -> torch.Tensor:
    return torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("size", [(33, 65), (32, 66), (1, 500), (97, 98)])
def test_images_are_padded_right_and_bottom_with_the_mean_color(stride, size):
    model, image = Recorder(), random_image(*size)
    logits = whole_image_logits(model, Normalize(MEAN, STD)(image), output_stride=stride)
    height, width = model.image.shape[-2:]
    assert (height - 1) % stride == (width - 1) % stride == 0
    assert 0 <= height - size[0] < stride and 0 <= width - size[1] < stride
    expected = (image.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(logits, expected.float(), rtol=1e-5, atol=1e-5)
    outside = model.image.clone()
    outside[..., : size[0], : size[1]] = 0
    assert (outside == 0).all()  # 0 is the mean color


def test_scale_1_without_flip_gives_the_logits_of_one_pass():
    model, image = Small(), random_image(40, 51)
    plain = Predictor(model, torch.device("cpu"))(image)
    expected = whole_image_logits(model, Normalize(MEAN, STD)(image), output_stride=16)
    assert torch.equal(plain, expected)
    assert torch.equal(Predictor(model, torch.device("cpu"), scales=[1.0])(image), expected)
    torch.testing.assert_close(Predictor(model, torch.device("cpu")).probabilities(image), expected.softmax(1))


def test_scales_and_flips_average_the_softmax():
    """Against the protocol written out: sides int((d - 1) * s + 1), aligned corners, flip before padding."""
    model, image = Small(), random_image(40, 51)
    ours = Predictor(model, torch.device("cpu"), scales=[0.5, 1.75], flip=True)(image)
    start, passes = Normalize(MEAN, STD)(image), []
    for height, width in ((20, 26), (69, 88)):
        scaled = F.interpolate(start, size=(height, width), mode="bilinear", align_corners=True)
        for is_flipped in (False, True):
            given = torch.from_numpy(scaled.numpy()[..., ::-1].copy()) if is_flipped else scaled
            padded = F.pad(given, (0, -(width - 1) % 16, 0, -(height - 1) % 16))
            logits = model(padded)[..., :height, :width].detach().numpy()
            logits = torch.from_numpy((logits[..., ::-1] if is_flipped else logits).copy())
            passes.append(F.interpolate(logits, size=(40, 51), mode="bilinear", align_corners=True).double().softmax(1))
    torch.testing.assert_close(ours.double(), sum(passes) / 4, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.sum(1), torch.ones(1, 40, 51))


@pytest.mark.parametrize(
    ("side", "window", "stride"), [(100, 30, 20), (30, 30, 20), (29, 30, 7), (101, 30, 30), (1, 5, 1)]
)
def test_windows_cover_the_side_and_stay_inside(side, window, stride):
    slices = list(windows(side, window, stride))
    counts = np.zeros(side, int)
    for one in slices:
        assert 0 <= one.start < one.stop <= side and one.stop - one.start == min(window, side)
        counts[one] += 1
    assert counts.min() >= 1 and len({one.start for one in slices}) == len(slices)
    steps = np.diff([one.start for one in slices])
    assert (steps <= stride).all() and (steps[:-1] == stride).all()


def starts(side: int, window: int, stride: int) -> list[int]:
    """The first pixel of each window; the last one ends with the image."""
    last = max(side - window, 0)
    return sorted({*range(0, last, stride), last})


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((40, 51), (20, 33), (9, 14)), ((51, 40), (33, 17), (30, 5)), ((30, 70), (33, 20), (11, 20))],
)
def test_windows_that_are_not_square_are_averaged_at_each_pixel(size, window, stride):
    """Against a slow computation: for each pixel the mean over the windows (height, width) that contain it."""
    image, model = torch.randn(1, 3, *size), Positional()
    passes = [
        (top, left, model(image[..., top : top + window[0], left : left + window[1]]))
        for top in starts(size[0], window[0], stride[0])
        for left in starts(size[1], window[1], stride[1])
    ]
    expected = torch.empty(1, 6, *size)
    for y, x in np.ndindex(*size):
        inside = [
            logits[0, :, y - top, x - left]
            for top, left, logits in passes
            if 0 <= y - top < logits.shape[2] and 0 <= x - left < logits.shape[3]
        ]
        expected[0, :, y, x] = torch.stack(inside).mean(0)
    ours = sliding_window_logits(model, image, window=window, stride=stride, output_stride=16)
    torch.testing.assert_close(ours, expected)
    turned = sliding_window_logits(model, image, window=window[::-1], stride=stride[::-1], output_stride=16)
    assert not torch.allclose(turned, expected)


def test_predictor_applies_windows_to_each_scaled_and_flipped_image():
    model, image = Small(), random_image(40, 51)
    sides = {"window": (20, 33), "stride": (9, 14)}
    start, total = Normalize(MEAN, STD)(image), 0
    for is_flipped in (False, True):
        scaled = F.interpolate(start, size=(59, 76), mode="bilinear", align_corners=True)
        given = scaled.flip(-1) if is_flipped else scaled
        logits = sliding_window_logits(model, given, output_stride=16, **sides)
        logits = logits.flip(-1) if is_flipped else logits
        total = total + F.interpolate(logits, size=(40, 51), mode="bilinear", align_corners=True).softmax(1)
    ours = Predictor(model, torch.device("cpu"), scales=[1.5], flip=True, **sides)(image)
    torch.testing.assert_close(ours, total / 2)


def test_overlapping_windows_are_averaged():
    model = Small()
    image = Normalize(MEAN, STD)(random_image(33, 50))
    ours = sliding_window_logits(model, image, window=(33, 33), stride=(33, 17), output_stride=16)
    left, right = model(image[..., :33]), model(image[..., 17:])
    torch.testing.assert_close(ours[..., :17], left[..., :17])
    torch.testing.assert_close(ours[..., 33:], right[..., 16:])
    torch.testing.assert_close(ours[..., 17:33], (left[..., 17:] + right[..., :16]) / 2)


def test_a_window_as_large_as_the_image_gives_one_pass():
    model, image = Small(), random_image(40, 51)
    whole = Predictor(model, torch.device("cpu"))(image)
    for window in ((40, 51), (400, 600)):
        assert torch.equal(Predictor(model, torch.device("cpu"), window=window, stride=(9, 9))(image), whole)


def test_the_center_crop_is_jfzhang95s():
    """Pillow resizes the short side, bilinear and nearest, then the middle is cropped."""
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


def test_an_unknown_padding_is_refused():
    with pytest.raises(UserError, match="unknown padding 'valid': choose one of symmetric, same"):
        pad_strided_convolutions(nn.Conv2d(1, 1, 3, 2), "valid")
