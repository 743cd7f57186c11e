"""Labels against torch.argmax, and against a loop that shares no code with either."""

import numpy as np
import pytest
import torch

from utils.labels import scores_to_labels

NAN, INF = float("nan"), float("inf")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ORDERS = {
    "contiguous": lambda scores: scores.contiguous(),
    "channels-last": lambda scores: scores.contiguous(memory_format=torch.channels_last),
    "cropped": lambda scores: torch.cat([scores, scores], 3)[..., : scores.shape[3]],
    "turned": lambda scores: scores.transpose(2, 3).contiguous().transpose(2, 3),
}


def scores_of(kind: str, *size: int) -> torch.Tensor:
    """float32; "ties": few values, so that most pixels have several maxima; "special": also NaN and infinities."""
    scores = torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))
    if kind == "plain":
        return scores
    scores = scores.round()
    return scores if kind == "ties" else scores.where(scores < 1, NAN).where(scores > -1, -INF).where(scores != 0, INF)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["plain", "ties", "special"])
@pytest.mark.parametrize("size", [(2, 1, 5, 7), (1, 2, 1, 9), (3, 21, 33, 17), (2, 255, 300, 8), (1, 256, 9, 1)])
def test_labels_are_those_of_argmax(kind, order, size):
    scores = scores_of(kind, *size)
    for dtype in DTYPES:
        given = ORDERS[order](scores.to(dtype))
        labels = scores_to_labels(given)
        assert labels.dtype == torch.uint8 and torch.equal(labels.long(), given.argmax(1)), dtype


def test_labels_in_strips_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("utils.strips.CPU_STRIP", 3 * 17 * 21 * 4)  # four rows
    for kind in ("ties", "special"):
        given = ORDERS["channels-last"](scores_of(kind, 3, 21, 33, 17))
        assert torch.equal(scores_to_labels(given).long(), given.argmax(1))


@pytest.mark.parametrize(
    ("scores", "label"),
    [((1, 3, 3), 1), ((0.0, -0.0), 0), ((-INF, -INF), 0), ((1, NAN, INF, NAN), 1), ((-INF, INF, INF), 1)],
)
def test_the_first_of_equal_scores_wins_and_nan_over_all(scores, label):
    given = torch.tensor(scores).view(1, -1, 1, 1)
    assert scores_to_labels(given.expand(1, -1, 4, 5).contiguous()).unique().tolist() == [label]
    assert np.argmax(np.array(scores)) == label
