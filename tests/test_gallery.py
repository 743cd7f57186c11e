"""The images that a validation keeps: spread over the set, and the worst."""

import numpy as np
import pytest
import torch

from utils.scoring import gallery as module
from utils.scoring.gallery import Gallery, evenly_spaced
from utils.scoring.loop import score
from utils.scoring.metrics import ConfusionMatrix

CPU = torch.device("cpu")


def batches(count: int, size: tuple[int, int] = (12, 10)) -> list[dict]:
    """One image each. The red channel is what `predict` predicts; image n has wrong pixels in (7 * n) % count rows."""
    made = []
    for number in range(count):
        label = torch.zeros(1, *size, dtype=torch.uint8)
        image = torch.full((1, 3, *size), number, dtype=torch.uint8)
        image[:, 0] = 0
        image[:, 0, : 7 * number % count] = 1
        made.append({"image": image, "label": label, "id": [f"i{number:03}"]})
    return made


def predict(image: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - image[:, 0].float(), image[:, 0].float()], 1)


def test_items_are_spread_over_the_whole_list():
    assert evenly_spaced(range(100), 4) == [12, 37, 62, 87]
    assert evenly_spaced("abc", 8) == ["a", "b", "c"] and evenly_spaced("", 8) == []
    assert evenly_spaced(range(7), 2) == [1, 5]


def test_it_keeps_the_wanted_and_the_worst_with_their_scores():
    made, wanted = batches(11), ["i009", "i002"]
    gallery = Gallery(2, wanted)
    score(predict, made, num_classes=2, device=CPU, observers=[gallery])
    assert [example.key for example in gallery.spread] == wanted
    assert [example.key for example in gallery.worst] == sorted(gallery.rows, key=lambda key: gallery.rows[key][0])[:4]
    for example in (*gallery.spread, *gallery.worst):
        batch = made[int(example.key[1:])]
        confusion = ConfusionMatrix(2)
        confusion.update(batch["image"][0, 0], batch["label"][0])
        assert example.miou == confusion.scores("ab")["miou"]
        assert np.array_equal(example.image, batch["image"][0]) and np.array_equal(example.label, batch["label"][0])
        assert np.array_equal(example.prediction, batch["image"][0, 0])
    assert set(gallery.copies) == {*wanted, *gallery.worst_ids}  # no other image stays in memory


def test_images_without_labeled_pixels_are_not_the_worst():
    made = batches(3)
    made[2]["label"][:] = 255
    gallery = Gallery(2)
    score(predict, made, num_classes=2, device=CPU, observers=[gallery])
    assert [example.key for example in gallery.worst] == ["i001", "i000"]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_images_do_not_depend_on_the_number_of_processes(world_size, monkeypatch):
    made, wanted = batches(11), ["i001", "i004", "i010"]
    alone = Gallery(2, wanted)
    score(predict, made, num_classes=2, device=CPU, observers=[alone])
    ranks = [Gallery(2, wanted) for _ in range(world_size)]
    for rank, gallery in enumerate(ranks):
        score(predict, made[rank::world_size], num_classes=2, device=CPU, observers=[gallery])
    # What each process contributes to the collectives, in their order: rows, worst ids, copies
    own = [[gallery.rows, gallery.worst_ids, gallery.copies] for gallery in ranks]
    received = iter([[values[number] for values in own] for number in (0, 1, 2)])
    monkeypatch.setattr("utils.scoring.per_image.all_gather", lambda _: next(received))
    monkeypatch.setattr(module, "gather_flat", lambda _: [key for part in next(received) for key in part])
    monkeypatch.setattr(module, "all_gather", lambda _: next(received))
    ranks[0].all_reduce(CPU)
    assert ranks[0].rows == alone.rows
    for found, expected in ((ranks[0].spread, alone.spread), (ranks[0].worst, alone.worst)):
        assert [example.key for example in found] == [example.key for example in expected]


def test_large_images_are_kept_small_and_keep_their_classes():
    made = batches(1, size=(1500, 1000))
    made[0]["label"][:, 700:] = 255
    gallery = Gallery(2, ["i000"])
    score(predict, made, num_classes=2, device=CPU, observers=[gallery])
    (example,) = gallery.spread
    assert example.prediction.shape == example.label.shape == example.image.shape[1:] == (640, 427)
    assert set(np.unique(example.label)) == {0, 255}
    assert sum(part.nbytes for part in example[:3]) < 1.5e6
