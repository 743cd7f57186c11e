"""The training crop: image and label stay aligned, padding is ignored, and only the kept pixels are resampled."""

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import IGNORE_INDEX, RandomScaleCrop, TrainDataset
from dataloaders.transforms import draw_window, resample, resample_label, whole_image

FILL = (124, 116, 104)


def pair(size=(120, 90), seed=0, block=15) -> tuple[Image.Image, Image.Image]:
    """A label of blocks, and an image whose red channel is ten times the label."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 21, (size[1] // block, size[0] // block), dtype=np.uint8)
    label = np.kron(blocks, np.ones((block, block), np.uint8))
    image = np.stack([label * 10, 255 - label * 10, label * 5], -1)
    return Image.fromarray(image), Image.fromarray(label)


def crop(seed: int, crop_size=(64, 80), base_size=None, size=(120, 90)) -> tuple[torch.Tensor, torch.Tensor]:
    transform = RandomScaleCrop(crop_size, fill=FILL, base_size=base_size)
    return transform(*pair(size), np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(30))
def test_image_and_label_are_aligned_to_the_pixel(seed):
    """Where the 3x3 pixels around a label's pixel are one class, the image has the exact color of this class."""
    image, label = crop(seed)
    inside = label[1:-1, 1:-1]
    shifts = [
        label[1 + dy : label.shape[0] - 1 + dy, 1 + dx : label.shape[1] - 1 + dx]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    is_flat = (torch.stack(shifts) == inside).all(0) & (inside != IGNORE_INDEX)
    assert is_flat.float().mean() > 0.3
    error = (image[0, 1:-1, 1:-1].int() - inside.int() * 10).abs()[is_flat]
    assert error.max() <= 1  # the kernel's rounding


@pytest.mark.parametrize("seed", range(30))
def test_edges_of_image_and_label_coincide(seed):
    """Away from edges, the label is the class whose color is nearest to the image's."""
    image, label = crop(seed)
    guess = (image[0].float() / 10).round().int()
    is_edge = torch.zeros_like(label, dtype=torch.bool)
    is_edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    is_edge[:, :-1] |= label[:, 1:] != label[:, :-1]
    is_edge[1:] |= label[1:] != label[:-1]
    is_edge[:-1] |= label[1:] != label[:-1]
    is_labeled = label != IGNORE_INDEX
    assert (guess == label)[is_labeled & ~is_edge].float().mean() > 0.999


def test_padding_is_mean_color_and_ignored():
    image, label = crop(0, crop_size=(400, 400))
    is_padding = label == IGNORE_INDEX
    assert is_padding.any() and not is_padding.all()
    assert (image[:, is_padding] == torch.tensor(FILL)[:, None]).all()
    assert not (image[:, ~is_padding] == torch.tensor(FILL)[:, None]).all(0).any()
    rows, columns = (~is_padding).any(1), (~is_padding).any(0)
    assert (~is_padding).sum() == rows.sum() * columns.sum()  # the image is one rectangle


def test_sizes_types_and_scale_range():
    for seed in range(20):
        image, label = crop(seed, crop_size=(400, 500))
        assert image.shape == (3, 400, 500) and image.dtype == torch.uint8
        assert label.shape == (400, 500) and label.dtype == torch.uint8
        height = int((label != IGNORE_INDEX).any(1).sum())
        assert 0.5 * 90 - 1 <= height <= 2 * 90 + 1


def test_base_size_sets_the_short_side():
    heights = [int((crop(seed, (600, 600), base_size=200)[1] != IGNORE_INDEX).any(1).sum()) for seed in range(40)]
    assert 99 <= min(heights) < 150 and 300 < max(heights) <= 401


def test_half_of_the_samples_are_flipped():
    """A flip moves the padding from the right to the left."""
    flipped = [bool((crop(seed, (400, 400))[1][:, 0] == IGNORE_INDEX).all()) for seed in range(60)]
    assert 15 < sum(flipped) < 45


def test_the_crop_equals_that_of_the_whole_resized_image():
    image, label = pair(size=(240, 180))
    rows, height = draw_window(180, 0.7, 64, np.random.default_rng(3))
    columns, width = draw_window(240, 0.7, 64, np.random.default_rng(4))
    ours = resample(image, rows, columns, (height, width))
    window = (columns.start, rows.start, columns.stop, rows.stop)
    theirs = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, window)).transpose(2, 0, 1)
    difference = np.abs(ours.numpy().astype(int) - theirs)[:, 1:-1, 1:-1]  # Pillow reads beyond the window's edge
    assert difference.max() <= 1
    scale_y, scale_x = (rows.stop - rows.start) / height, (columns.stop - columns.start) / width
    ys = rows.start + np.floor((np.arange(height) + 0.5) * scale_y).astype(int)
    xs = columns.start + np.floor((np.arange(width) + 0.5) * scale_x).astype(int)
    assert np.array_equal(resample_label(label, rows, columns, (height, width)).numpy(), np.asarray(label)[ys][:, xs])


@pytest.mark.parametrize("scale", [0.5, 0.75, 1, 4 / 3, 1.5, 2, 1.234])
def test_labels_are_resampled_as_pillow_does(scale):
    """Also where a pixel's center lies between two pixels."""
    random = np.random.default_rng(0)
    label = Image.fromarray(random.integers(0, 256, (97, 121), dtype=np.uint8))
    for _ in range(20):
        rows, height = draw_window(97, scale, 65, random)
        columns, width = draw_window(121, scale, 65, random)
        window = (columns.start, rows.start, columns.stop, rows.stop)
        expected = label.resize((width, height), Image.Resampling.NEAREST, window)
        for pixels in (label, np.asarray(label)):
            assert np.array_equal(resample_label(pixels, rows, columns, (height, width)), expected)


def test_memory_mapped_arrays_give_the_samples_of_images(tmp_path):
    image, label = pair()
    for name, pixels in (("image", image), ("label", label)):
        np.save(tmp_path / name, np.asarray(pixels))
    maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "label")]
    for crop_size in ((64, 80), (400, 80)):
        transform = RandomScaleCrop(crop_size, fill=FILL)
        for seed in range(10):
            samples = (transform(*pixels, np.random.default_rng(seed)) for pixels in ((image, label), maps))
            assert all(map(torch.equal, *samples))


def test_windows_stay_inside_and_reach_every_pixel():
    random, is_covered = np.random.default_rng(0), np.zeros(50, bool)
    for _ in range(300):
        window, length = draw_window(50, random.uniform(0.5, 2), 33, random)
        assert 0 <= window.start < window.stop <= 50 and 1 <= length <= 33
        is_covered[window] = True
    assert is_covered.all()


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (1, 1)])
def test_sides_of_one_pixel_are_cropped(size):
    transform = RandomScaleCrop((33, 33), fill=FILL)
    for seed in range(10):
        image, label = transform(Image.new("RGB", size), Image.new("L", size, 3), np.random.default_rng(seed))
        assert image.shape == (3, 33, 33) and (label == 3).any()


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    class TwoImages:
        ids = ("a", "b")

        def __len__(self):
            return 2

        def read_pixels(self, index):
            return pair(seed=index)

    def sample(seed, key):
        np.random.seed(np.random.randint(1000))  # noqa: NPY002 - the global state must not matter
        return TrainDataset(TwoImages(), RandomScaleCrop((33, 33), fill=FILL), seed=seed)[key]

    one, two = sample(1, (3, 0)), sample(1, (3, 0))
    assert torch.equal(one["image"], two["image"]) and torch.equal(one["label"], two["label"]) and one["id"] == "a"
    for other in (sample(2, (3, 0)), sample(1, (4, 0)), sample(1, (3, 1))):
        assert not torch.equal(one["image"], other["image"])


def test_whole_images_keep_their_pixels():
    image, label = pair()
    image_tensor, label_tensor = whole_image(image, label)
    assert np.array_equal(image_tensor.numpy().transpose(1, 2, 0), np.asarray(image))
    assert np.array_equal(label_tensor.numpy(), np.asarray(label))
