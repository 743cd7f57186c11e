"""Sheets show what they say."""

import numpy as np

from dataloaders.palettes import voc_palette
from utils.visualize import Example, colour, example_row, sheet

PALETTE = voc_palette(4)


def example(height=30, width=40) -> Example:
    label = np.zeros((height, width), np.uint8)
    label[:10], label[20:] = 1, 255
    return Example(np.full((3, height, width), 77, np.uint8), label, np.full((height, width), 2))


def test_colours_are_the_palettes_and_ignored_is_white():
    assert np.array_equal(colour(np.array([[0, 3, 255]]), PALETTE)[0], [PALETTE[0], PALETTE[3], (255, 255, 255)])


def test_a_row_is_input_truth_prediction():
    row = example_row(example(), PALETTE, width=40)
    assert row.shape == (30, 3 * 40 + 12, 3)
    assert (row[:, :40] == 77).all()
    assert (row[:10, 46:86] == PALETTE[1]).all() and (row[20:, 46:86] == 255).all()
    assert (row[:20, 92:] == PALETTE[2]).all() and (row[20:, 92:] == 255).all()


def test_a_sheet_takes_pictures_of_any_size():
    names = ["ground", "a wall", "a very long name of a class", "sky"]
    image = sheet([example(), example(300, 20), example(7, 90), example(1, 900)], names, PALETTE, width=50)
    assert image.width == 162 and image.height > 38 + 750 + 4 + 1


def test_a_row_without_truth_is_input_and_all_of_the_prediction():
    row = example_row(example()._replace(label=None), PALETTE, width=40)
    assert row.shape == (30, 2 * 40 + 6, 3) and (row[:, :40] == 77).all() and (row[:, 46:] == PALETTE[2]).all()
