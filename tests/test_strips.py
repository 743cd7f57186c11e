"""Scores in strips of rows: the bits of the whole, which is never computed."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from modeling import build_model
from utils.geometry import resize
from utils.inference import Predictor, whole_image_logits
from utils.scoring.cross_entropy import MeanCrossEntropy
from utils.scoring.loop import score
from utils.scoring.metrics import ConfusionMatrix
from utils.strips import ResizedMap, TensorMap, UpsampledMap

CPU = torch.device("cpu")
K, SIZE = 7, (150, 131)


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    monkeypatch.setattr("utils.strips.CPU_STRIP", 9 * K * SIZE[1])  # nine rows


class Coarse(nn.Module):
    """As a network: logits of a quarter of the size, which only `forward` upsamples."""

    mean, std, output_stride = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4), 16

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, K, 5, stride=4, padding=2)

    def low_resolution_logits(self, image):
        return self.conv(image)

    def forward(self, image, *, upsample=True):
        logits = self.low_resolution_logits(image)
        return resize(logits, image.shape[-2:]) if upsample else logits


class Storages(TorchDispatchMode):
    """The storages of the scores, maps of `K` channels, that have at least `size` elements."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.found = size, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.numel() >= self.size and result.shape[1:2] == (K,):
            self.found.add(result.untyped_storage().data_ptr())
        return result


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16, 3, 12])
@pytest.mark.parametrize(("height", "width"), [(1, 9), (2, 1), (17, 3), (33, 11), (5, 29)])
def test_strips_have_the_bits_of_the_whole(factor, height, width, monkeypatch):
    coarse, full = torch.randn(2, K, height, width), ((height - 1) * factor + 1, (width - 1) * factor + 1)
    size = (max(1, full[0] - factor // 2), max(1, full[1] - 1))
    expected = resize(coarse, full)[..., : size[0], : size[1]]
    for limit in (1, 2000, 2**20):
        monkeypatch.setattr("utils.strips.CPU_STRIP", limit)
        for given in (coarse, coarse.contiguous(memory_format=torch.channels_last)):
            found = UpsampledMap(given, full, size)
            assert torch.equal(torch.cat([part for _, part in found.strips()], 2), expected)
            assert torch.equal(found.whole(), expected)


@pytest.mark.parametrize("size", [(60, 50), (20, 90), (1, 1), (47, 31), (93, 1)])
def test_a_second_resizing_is_that_of_the_whole_but_for_rounding(size, monkeypatch):
    monkeypatch.setattr("utils.strips.CPU_STRIP", 1000)
    for source in (torch.randn(2, 3, 47, 31), torch.randn(1, 2, 1, 5)):
        found = ResizedMap(TensorMap(source), size).whole()
        torch.testing.assert_close(found, resize(source, size), rtol=0, atol=2e-6)


@pytest.mark.parametrize("head", ["separable", "lite"])
def test_a_predictor_gives_the_logits_of_its_network_in_strips(head):
    model = build_model("mobilenet", K, head=head).eval()
    predictor, image = Predictor(model, CPU), images(2)
    with torch.no_grad():
        expected = whole_image_logits(model, predictor.normalize(image), output_stride=16)
    parts = list(predictor.strips(image))
    assert len(parts) > 3 and torch.equal(torch.cat(parts, 2), expected)
    assert torch.equal(predictor(image), expected)
    assert torch.equal(predictor.labels(image).long(), expected.argmax(1))


@pytest.mark.parametrize(
    ("how", "num_whole"),
    [({}, 0), ({"flip": True}, 1), ({"scales": (0.5, 1.0, 2.0), "flip": True}, 1), ({"scales": (1.75,)}, 1)],
)
def test_scoring_never_holds_two_whole_scores(how, num_whole):
    """A single view not even one; several are summed in one."""
    predictor, label = Predictor(Coarse(), CPU, **how), torch.randint(0, K, (1, *SIZE)).byte()
    label[:, :4] = 255
    scores = predictor(images(1))
    expected = ConfusionMatrix(K)
    expected.update(scores.argmax(1), label)
    loss = None if how else MeanCrossEntropy()
    batches = [{"image": images(1), "label": label, "id": ["a"]}]
    with Storages(scores.numel()) as storages:
        found = score(predictor, batches, num_classes=K, device=CPU, loss=loss)
    assert torch.equal(found.counts, expected.counts) and len(storages.found) == num_whole
    if loss:
        mean = nn.functional.cross_entropy(scores.double(), label.long(), ignore_index=255)
        assert loss.mean() == pytest.approx(mean.item(), rel=1e-6)
