"""Example grids, overlays and legends show the right colors in the right places."""

import numpy as np
import pytest

from utils.palettes import voc_palette
from utils.scoring.visualize import Example, color, corner_legend, example_row, grid, overlay

PALETTE = voc_palette(4)


def example(height=30, width=40) -> Example:
    label = np.zeros((height, width), np.uint8)
    label[:10], label[20:] = 1, 255
    return Example(np.full((3, height, width), 77, np.uint8), label, np.full((height, width), 2))


def test_colors_are_the_palettes_and_ignored_is_white():
    assert np.array_equal(color(np.array([[0, 3, 255]]), PALETTE)[0], [PALETTE[0], PALETTE[3], (255, 255, 255)])


def test_a_row_is_image_label_prediction():
    row = example_row(example(), PALETTE, width=40)
    assert row.shape == (30, 3 * 40 + 12, 3)
    assert (row[:, :40] == 77).all()
    assert (row[:10, 46:86] == PALETTE[1]).all() and (row[20:, 46:86] == 255).all()
    assert (row[:20, 92:] == PALETTE[2]).all() and (row[20:, 92:] == 255).all()


def test_a_grid_takes_images_of_any_size():
    names = ["ground", "a wall", "a very long name of a class", "sky"]
    image = grid([example(), example(300, 20), example(7, 90), example(1, 900)], names, PALETTE, width=50)
    assert image.width == 162 and image.height > 38 + 750 + 4 + 1


def test_a_row_without_label_is_image_and_whole_prediction():
    row = example_row(example()._replace(label=None), PALETTE, width=40)
    assert row.shape == (30, 2 * 40 + 6, 3) and (row[:, :40] == 77).all() and (row[:, 46:] == PALETTE[2]).all()


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, (30, 30)), (1, (1, 1)), (11, (640, 480)), (11, (480, 2000)), (11, (900, 60)), (11, (97, 97)),
     (150, (640, 480)), (150, (97, 97)), (150, (1, 1))],
)  # fmt: skip
def test_a_legend_takes_at_most_a_third_of_the_height(count, size):
    names, palette = [f"class number {number}" for number in range(count)], voc_palette(count)
    corner = corner_legend(range(count), names, palette, size)
    assert corner.width <= size[0] and corner.height <= max(1, size[1] // 3)


def test_a_legend_is_small_and_half_transparent():
    names, palette = ["sky", "building", "pole", "road", "pavement", "tree", "car"], voc_palette(7)
    corner = corner_legend(range(7), names, palette, (480, 360))
    assert corner.width * corner.height < 0.1 * 480 * 360
    alpha = np.asarray(corner)[..., 3]
    assert set(np.unique(alpha)) > {128} and (alpha[:, -1] == 128).all()


def test_classes_of_one_color_are_separated_by_a_line():
    """Both classes and the image are black."""
    label = np.zeros((30, 40), np.uint8)
    label[:, 20:] = 1
    image = overlay(np.zeros((30, 40, 3), np.uint8), label, ["sky", "night"], [(0, 0, 0)] * 2, opacity=0.6)
    pixels = np.asarray(image)
    assert (pixels[:10, 20] == 128).all() and not pixels[:10, :20].any() and not pixels[:10, 21:].any()
