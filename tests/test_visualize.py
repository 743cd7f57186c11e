"""Example sheets, overlays and legends show the right colors in the right places."""

import numpy as np
import pytest

from utils.palettes import voc_palette
from utils.scoring import sheet
from utils.scoring.sheet import IGNORED, WRONG, example_row, grid
from utils.scoring.visualize import GAP, Example, color, corner_legend, legend, overlay

PALETTE = voc_palette(4)


def example(height=30, width=40) -> Example:
    label = np.zeros((height, width), np.uint8)
    label[:10], label[20:] = 1, 255
    return Example(np.full((3, height, width), 77, np.uint8), label, np.full((height, width), 2, np.uint8))


def test_colors_are_the_palettes_and_ignored_is_white():
    assert np.array_equal(color(np.array([[0, 3, 255]]), PALETTE)[0], [PALETTE[0], PALETTE[3], (255, 255, 255)])


def columns_of(row: np.ndarray, width: int = 40) -> list[np.ndarray]:
    """The panels of a row, without the white between them."""
    starts = range(0, row.shape[1], width + GAP)
    assert all((row[:, start - GAP : start] == 255).all() for start in starts[1:])
    return [row[:, start : start + width] for start in starts]


def test_a_row_is_image_label_prediction_and_errors():
    """Class 1 above, 0 below it, 255 at the bottom; the prediction is 2, and 0 in two lines."""
    shown = example()
    shown.prediction[10:12] = 0
    row = example_row(shown, PALETTE, width=40)
    assert row.shape == (30, 4 * 40 + 3 * GAP, 3)
    image, label, prediction, errors = columns_of(row)
    assert (image == 77).all()
    assert (label[:10] == PALETTE[1]).all() and (label[10:20] == PALETTE[0]).all() and (label[20:] == 255).all()
    assert (prediction[10:12] == PALETTE[0]).all() and (np.delete(prediction, [10, 11], 0) == PALETTE[2]).all()
    assert (errors[10:12] == errors[10, 0, 0]).all() and errors[10, 0, 0] < 77  # right: the dimmed image
    assert (np.delete(errors[:20], [10, 11], 0) == WRONG).all()
    colors = {tuple(color) for color in errors[20:].reshape(-1, 3).tolist()}
    assert colors == {IGNORED.dark, IGNORED.light} and not {WRONG, (errors[10, 0, 0],) * 3} & colors


def test_the_prediction_is_the_same_whatever_the_label_is():
    """Nothing of the label is in it."""
    shown = example()
    others = [shown._replace(label=np.full_like(shown.label, value)) for value in (0, 2, 255)]
    panels = [columns_of(example_row(each, PALETTE, width=40))[2] for each in (shown, *others)]
    assert all(np.array_equal(panel, panels[0]) for panel in panels)


def test_an_image_without_errors_has_none_drawn():
    shown = example()
    shown.label[:] = shown.prediction
    errors = columns_of(example_row(shown, PALETTE, width=40))[3]
    assert len(np.unique(errors)) == 1


def test_every_color_of_a_shrunk_label_is_a_class():
    """Class numbers are not mixed, and what is wrong is where the drawn label and prediction differ."""
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 4, (2, 97, 131), dtype=np.uint8)
    row = example_row(Example(np.zeros((3, 97, 131), np.uint8), label, prediction), PALETTE, width=40)
    _, label, prediction, errors = columns_of(row)
    assert {tuple(color) for color in label.reshape(-1, 3).tolist()} == set(PALETTE)
    assert np.array_equal((errors == WRONG).all(-1), (label != prediction).any(-1))


def legend_of(monkeypatch, examples) -> list[str]:
    """The names in the legend of a sheet."""
    found = []
    monkeypatch.setattr(sheet, "legend", lambda entries, width: found.extend(entries) or legend(entries, width))
    grid(examples, ["ground", "wall", "sky", "tree"], PALETTE, width=40)
    return [name for name, _ in found]


def test_the_legend_names_what_occurs(monkeypatch):
    ignored = "ignored: white in the label"
    assert legend_of(monkeypatch, [example()]) == ["ground", "wall", "sky", "wrong", ignored]
    right = example()._replace(prediction=example().label)
    right.label[right.label == 255] = 3
    right.prediction[:] = right.label
    assert legend_of(monkeypatch, [right]) == ["ground", "wall", "tree"]
    partly = example()
    partly.label[:20] = partly.prediction[:20]
    assert legend_of(monkeypatch, [partly]) == ["sky", ignored]  # an ignored pixel is not wrong
    assert legend_of(monkeypatch, [right, example()]) == ["ground", "wall", "sky", "tree", "wrong", ignored]
    assert legend_of(monkeypatch, [example()._replace(label=None)]) == ["sky"]


def texts_of(monkeypatch, examples) -> list[str]:
    """All texts of a sheet above its legend."""
    found = []
    text_line = sheet.text_line
    monkeypatch.setattr(sheet, "text_line", lambda parts, width: found.append(parts) or text_line(parts, width))
    grid(examples, ["ground", "wall", "sky", "tree"], PALETTE, width=200)
    return [" ".join(text for text, _ in parts) for parts in found]


def test_a_sheet_has_column_titles_and_an_id_and_miou_a_row(monkeypatch):
    rows = [example()._replace(key="0016E5_07959", miou=0.62345), example()._replace(key="x", miou=None)]
    titles = ["image", "label", "prediction", "errors"]
    assert texts_of(monkeypatch, rows) == [*titles, "0016E5_07959 mIoU 62.34", "x"]


def test_a_sheet_without_labels_has_two_columns(monkeypatch):
    rows = [example()._replace(key="a", label=None), example()._replace(key="b", label=None)]
    assert texts_of(monkeypatch, rows) == ["image", "prediction", "a", "b"]


def test_a_sheet_takes_images_of_any_size():
    names = ["ground", "a wall", "a very long name of a class", "sky"]
    image = grid([example(), example(300, 20), example(7, 90), example(1, 900)], names, PALETTE, width=50)
    assert image.width == 4 * (50 + GAP) + GAP and image.height > 38 + 600 + 4 + 1
    assert image.getpixel((image.width - 1, 0)) == (255, 255, 255)


def test_a_row_without_label_is_image_and_whole_prediction():
    row = example_row(example()._replace(label=None), PALETTE, width=40)
    assert row.shape == (30, 2 * 40 + GAP, 3) and (row[:, :40] == 77).all() and (row[:, 40 + GAP :] == PALETTE[2]).all()


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
