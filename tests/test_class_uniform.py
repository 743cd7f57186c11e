"""Class-uniform sampling and color jitter."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from dataloaders import RandomScaleCrop, TrainDataset, build_dataset
from dataloaders.class_centers import ClassCenters, centers_of
from dataloaders.color_jitter import ColorJitter
from dataloaders.sampler import epoch_order

CROP = RandomScaleCrop((9, 9), fill=(0, 0, 0))


@pytest.fixture
def train_set(voc_root):
    return build_dataset("pascal", "train", root=voc_root)


def test_a_center_is_the_pixel_of_the_class_nearest_to_its_centroid():
    label = np.random.default_rng(0).integers(0, 3, (11, 7)).astype(np.uint8)
    label[3:9, 2:6] = 255
    found = {number: np.array(place) for number, *place in centers_of(label)}
    assert set(found) == {0, 1, 2}
    for number, place in found.items():
        pixels = np.argwhere(label == number)
        distances = np.linalg.norm(pixels - pixels.mean(0), axis=1)
        assert np.linalg.norm(place - pixels.mean(0)) == pytest.approx(distances.min())
        assert label[tuple(place)] == number
    assert centers_of(np.full((4, 4), 255, np.uint8)) == []


def test_a_large_label_has_a_center_in_each_tile(train_set, monkeypatch):
    monkeypatch.setattr("dataloaders.class_centers.TILE", 16)
    label = np.asarray(train_set.read(0)[1])
    expected = sum(
        len(np.setdiff1d(label[y : y + 16, x : x + 16], 255))
        for y in range(0, label.shape[0], 16) for x in range(0, label.shape[1], 16)
    )  # fmt: skip
    centers = np.concatenate(ClassCenters(train_set).centers)
    assert (centers[:, 0] == 0).sum() == expected


def test_each_class_is_the_middle_of_equally_many_crops(train_set):
    """Of the images around a class, those at scale 1 show it exactly in the middle."""
    samples = TrainDataset(train_set, CROP, seed=1, centers=ClassCenters(train_set))
    middles = []
    for number in range(60):
        key = (3, len(train_set) + number)
        index, (row, column) = samples.locate(key)
        label = np.asarray(train_set.read(index)[1])
        middles.append(label[row, column])
        sample, size = samples.load(key)
        crop = samples.crop(key, size)
        assert crop.rows.start <= row < crop.rows.stop and crop.columns.start <= column < crop.columns.stop
        if crop.rows.start > 0 and crop.rows.stop < label.shape[0]:  # the border does not shift it
            assert abs((crop.rows.start + crop.rows.stop) / 2 - row - 0.5) <= 1.5
        assert sample["id"] == train_set.ids[index]
    classes, counts = np.unique(middles, return_counts=True)
    assert len(classes) > 5 and counts.max() - counts.min() <= 1


def test_the_samples_of_an_epoch_are_images_and_class_uniform_ones():
    orders = [epoch_order(20, seed=1, epoch=epoch, num_uniform=5) for epoch in range(2)]
    for order in orders:
        assert len(order) == 20 and sorted(order)[15:] == [20, 21, 22, 23, 24] and len(set(order)) == 20
    assert list(orders[0]) != list(orders[1])
    plain = epoch_order(20, seed=1, epoch=0, num_uniform=0)
    assert np.array_equal(plain, epoch_order(20, seed=1, epoch=0)) and sorted(plain) == list(range(20))


def test_class_uniform_samples_differ_between_epochs_and_not_between_calls(train_set):
    samples = TrainDataset(train_set, CROP, seed=1, centers=ClassCenters(train_set))
    number = len(train_set) + 2
    one, again = (samples[0, number]["image"] for _ in range(2))
    assert torch.equal(one, again)
    assert any(not torch.equal(one, samples[epoch, number]["image"]) for epoch in range(1, 4))


def test_jitter_composes_the_functions_of_torchvision_in_random_order():
    image = torch.randint(0, 256, (3, 8, 6), dtype=torch.uint8)
    result = ColorJitter(0.4)(image, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    factors, hue = rng.uniform(0.6, 1.4, 3), rng.uniform(-0.1, 0.1)
    names = ["brightness", "contrast", "saturation", "hue"]
    expected = Image.fromarray(image.permute(1, 2, 0).numpy())
    for number in rng.permutation(4):
        value = float([*factors, hue][number])
        expected = getattr(functional, f"adjust_{names[number]}")(expected, value)
    assert torch.equal(result, torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    assert result.dtype == torch.uint8 and not torch.equal(result, image)


def test_jitter_leaves_label_padding_and_place_as_they_are(train_set):
    crops = [RandomScaleCrop((65, 65), fill=(7, 8, 9), jitter=jitter) for jitter in (None, ColorJitter(0.4))]
    plain, jittered = (TrainDataset(train_set, crop, seed=1)[0, 1] for crop in crops)
    assert torch.equal(plain["label"], jittered["label"]) and not torch.equal(plain["image"], jittered["image"])
    padding = (plain["image"] == torch.tensor([7, 8, 9]).view(3, 1, 1)).all(0) & (plain["label"] == 255)
    assert padding.any() and torch.equal(plain["image"][:, padding], jittered["image"][:, padding])
