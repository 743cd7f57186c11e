"""Images too large for one pass: windows that overlap, blended where they meet, one at a time."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import predict
from modeling.segmenter import Segmenter
from utils import large_images
from utils.errors import UserError
from utils.inference import Predictor
from utils.large_images import GRID, blended, is_large, label_in_windows, spans, window_side

SIZES = [(300, 411), (97, 500), (40, 30), (700, 161)]  # (height, width)
WINDOWS = [(129, 65, 16), (129, 33, 0), (97, 33, 33), (161, 65, 10)]  # side, overlap, fade
CPU = torch.device("cpu")


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


def assemble(scores_of, image: Image.Image, side: int, overlap: int, fade: int) -> torch.Tensor:
    """The scores [K, H, W] of all windows. Fails if a pixel comes twice or never."""
    rows, columns = (spans(length, side, overlap, fade) for length in image.size[::-1])
    result = None
    for (y, x), scores in blended(scores_of, torch.clone, image, rows, columns):
        if result is None:
            result = scores.new_full((scores.shape[1], *image.size[::-1]), torch.nan)
        assert result[:, y, x].isnan().all()
        result[:, y, x] = scores[0]
    assert not result.isnan().any()
    return result


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", SIZES)
def test_scores_that_do_not_depend_on_the_window_are_those_of_the_whole(size, window):
    weights, image = torch.randn(4, 3), picture(*size)

    def scores_of(image):
        assert max(image.shape[-2:]) <= window[0]
        return torch.einsum("kc,bchw->bkhw", weights, image.float())

    expected = torch.einsum("kc,bchw->bkhw", weights, tensor(image).float())[0]
    torch.testing.assert_close(assemble(scores_of, image, *window), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_from_one_window_to_the_next_scores_change_gradually(size, axis):
    """A window's scores are its number in its row or column of windows, in all its pixels."""
    side, overlap, fade = 129, 65, 16
    grid = [range(len(spans(length, side, overlap, fade))) for length in size]
    numbers = iter([place[axis] for place in itertools.product(*grid)])
    found = assemble(
        lambda image: torch.full((1, 1, *image.shape[-2:]), float(next(numbers))), picture(*size), side, overlap, fade
    )[0]
    steps = found.diff(dim=axis)
    assert found.min() == 0 and found.max() == len(grid[axis]) - 1
    assert steps.numel() == 0 or (steps.min() > -1e-4 and steps.max() < 1 / fade + 1e-4)
    assert found.diff(dim=1 - axis).abs().sum() < 1e-2 * found.numel()


@pytest.mark.parametrize(
    ("side", "window", "overlap"), [(6000, 1025, 257), (1026, 1025, 257), (700, 97, 33), (9, 97, 33)]
)
def test_windows_lie_on_the_grid_of_the_network_and_overlap(side, window, overlap):
    found = spans(side, window, overlap, 16)
    assert found[0].start == 0 and found[-1].stop == side
    assert all(span.start % GRID == 0 and 0 < span.stop - span.start <= window for span in found)
    assert all(before.stop - after.start >= overlap for before, after in itertools.pairwise(found))
    assert all(before.end - after.begin == 16 for before, after in itertools.pairwise(found))
    assert len(found) == 1 + max(0, -(-(side - window) // (window - overlap)))


class Local(nn.Module):
    """Logits of one 3x3 convolution on a grid of 4 pixels, as those of the network; `sides` it was given."""

    mean, std, output_stride = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 16

    def __init__(self):
        super().__init__()
        self.conv, self.sides = nn.Conv2d(3, 5, 3, 4, 1), []

    def forward(self, image):
        self.sides += image.shape[-2:]
        return nn.functional.interpolate(self.conv(image), image.shape[-2:], mode="bilinear", align_corners=True)


@pytest.mark.parametrize("views", [{}, {"scales": (0.5, 2.0), "flip": True}])
def test_labels_are_those_of_the_whole_image_for_a_network_that_sees_a_few_pixels(monkeypatch, views):
    """With several views windows shift the grids of resized and mirrored images by parts of a pixel."""
    monkeypatch.setattr(large_images, "WINDOW", 4 * GRID + 1)
    image, model = picture(23, 30).resize((300, 230), Image.Resampling.BICUBIC), Local()
    predictor = Predictor(model, CPU, **views)
    expected = predictor.probabilities(tensor(image))[0].max(0)
    model.sides.clear()
    labels, confidence = label_in_windows(predictor, image, with_confidence=True, is_blended=True)
    assert max(model.sides) <= large_images.WINDOW + 16 and labels.dtype == np.uint8 and confidence.dtype == np.float32
    if views:
        assert (labels == expected.indices.numpy()).mean() > 0.9
        assert abs(confidence - expected.values.numpy()).mean() < 0.01
    else:
        assert np.array_equal(labels, expected.indices.numpy())
        np.testing.assert_allclose(confidence, expected.values.numpy(), atol=1e-5)
    alone, nothing = label_in_windows(predictor, image, with_confidence=False, is_blended=True)
    assert nothing is None and np.array_equal(alone, labels)


def test_scores_of_labels_are_not_averaged(monkeypatch):
    """A graph of labels gives 0 and -inf; twice each, for a window's own label."""
    monkeypatch.setattr(large_images, "WINDOW", 4 * GRID + 1)
    image, numbers = picture(300, 230), iter(range(256))

    class Labels(Predictor):
        def __call__(self, image):
            scores = torch.full((1, 256, *image.shape[-2:]), -torch.inf)
            scores[:, next(numbers)] = 0
            return scores

    labels, confidence = label_in_windows(Labels(Local(), CPU), image, with_confidence=True, is_blended=False)
    assert (confidence == 1).all() and set(np.unique(labels)) == set(range(next(numbers)))


def test_the_largest_view_decides_whether_and_how_an_image_is_split():
    assert not is_large((2048, 1024), (1.0,)) and is_large((2048, 1025), (1.0,)) and is_large((2049, 1024), (0.5,))
    assert is_large((1024, 1025), (0.5, 2.0)) and not is_large((1024, 512), (0.5, 2.0))
    assert window_side((1.0,)) == window_side((0.25, 0.5)) == 1025 and window_side((0.5, 1.75)) == 577


def test_large_images_are_split_unless_whole_is_asked_for_and_a_note_says_so_once(folder_network, monkeypatch, capsys):
    monkeypatch.setattr(large_images, "MAX_PIXELS", 100 * 90)
    monkeypatch.setattr(large_images, "WINDOW", 2 * GRID + 1)
    small, large = picture(90, 100), [picture(91, 100), picture(91, 100, seed=1)]
    segmenter, passes = Segmenter(folder_network, "cpu", batch_size=2), []
    whole = Segmenter(folder_network, "cpu", whole=True)
    for each in (segmenter, whole):
        each.predictor.model.register_forward_pre_hook(lambda _, given: passes.append(tuple(given[0].shape)))
    assert np.array_equal(segmenter(small).labels, whole(small).labels) and passes == [(1, 3, 97, 113)] * 2
    assert "note" not in capsys.readouterr().out
    passes.clear()
    results = segmenter(large)
    assert len(passes) == 8 and all(max(shape) == 65 for shape in passes)
    note = "note: 100x91 pixels are labeled in 4 overlapping windows of 65x65, as all images above 2048x1024 pixels"
    assert capsys.readouterr().out.count(note) == 1
    for image, result in zip(large, results, strict=True):
        assert result.labels.shape == result.scores.shape == (91, 100) and result.image.size == (100, 91)
        assert (result.labels == whole(image).labels).mean() > 0.5
    assert passes[-1] == (1, 3, 97, 113)


def test_whole_and_windows_contradict():
    with pytest.raises(UserError, match="`whole` and `window` 17 are two ways to take an image: leave one out"):
        Segmenter("nowhere.pth", "cpu", whole=True, window=17)


def test_the_command_splits_large_images_unless_told(folder_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(large_images, "MAX_PIXELS", 100 * 90)
    monkeypatch.setattr(large_images, "WINDOW", 2 * GRID + 1)
    picture(91, 100).save(tmp_path / "a.png")
    found = {}
    for protocol in ("auto", "whole"):
        out = tmp_path / protocol
        flags = ["--checkpoint", str(folder_network), str(tmp_path / "a.png"), "--out", str(out), "--workers", "0"]
        assert predict.main([*flags, "--protocol", protocol, "--scores"]) == 0
        assert ("overlapping windows" in capsys.readouterr().out) == (protocol == "auto")
        found[protocol] = np.asarray(Image.open(out / "a_scores.png"))
    assert not np.array_equal(found["auto"], found["whole"])
    with pytest.raises(SystemExit):
        predict.main(["--help"])
    assert "above 2048x1024 pixels" in " ".join(capsys.readouterr().out.split())
