"""Colors of own data are far apart to the eye, and the same everywhere; classes.txt may give others."""

import subprocess
import sys

import numpy as np
import pytest

from dataloaders import build_dataset, class_names
from dataloaders.checks.class_file import parse_class_lines, render_class_lines
from dataloaders.demo import Demo
from utils.distinct_colors import distinct_colors, distinct_palette, oklab
from utils.errors import UserError
from utils.palettes import ADE20K_PALETTE, CITYSCAPES_PALETTE, VOC_CLASSES, voc_palette

FROM = "from utils.distinct_colors import distinct_colors; print(distinct_colors(254))"


def names(number: int) -> list[str]:
    return ["background", *(f"class {n}" for n in range(1, number))]


def min_distance(palette) -> float:
    points = oklab(np.array(palette))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return distances[np.triu_indices(len(points), 1)].min()


def test_oklab_of_known_colors():
    """Red and green as CSS Color 4 gives them."""
    found = oklab(np.array([[255, 0, 0], [0, 128, 0], [255, 255, 255], [0, 0, 0]]))
    expected = [[0.62796, 0.22486, 0.12585], [0.51975, -0.14030, 0.10768], [1, 0, 0], [0, 0, 0]]
    assert np.allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("number", "bound"), [(2, 0.5), (11, 0.2), (21, 0.14), (60, 0.09), (150, 0.055), (254, 0.05)]
)  # fmt: skip
def test_any_two_colors_are_far_apart(number, bound):
    """Also from the white of ignored pixels, and farther than in VOC's palette of as many classes."""
    palette = distinct_palette(names(number))
    assert len(palette) == len(set(palette)) == number
    assert min_distance([*palette, (255, 255, 255)]) > bound
    assert min_distance(palette) > min_distance(voc_palette(number))
    assert all(type(value) is int and 0 <= value <= 255 for color in palette for value in color)


@pytest.mark.parametrize("known", [ADE20K_PALETTE, CITYSCAPES_PALETTE])
def test_they_are_farther_apart_than_in_other_palettes(known):
    assert min_distance(distinct_colors(len(known))) > 1.5 * min_distance(known)


def test_every_process_finds_the_same_colors():
    printed = subprocess.run([sys.executable, "-c", FROM], capture_output=True, text=True, check=True).stdout
    assert printed == f"{distinct_colors(254)}\n"
    assert distinct_colors(4) == [(102, 0, 255), (0, 136, 0), (255, 0, 85), (0, 255, 0)]


def test_another_class_at_the_end_changes_no_color():
    assert all(distinct_palette(names(n + 1))[:n] == distinct_palette(names(n)) for n in range(2, 254, 7))


@pytest.mark.parametrize(("first", "is_black"), [("background", True), ("_background_", True), ("Background", True),
                                                 ("road", False), ("background wall", False)])  # fmt: skip
def test_only_a_background_is_black(first, is_black):
    palette = distinct_palette([first, "a", "b"])
    assert (palette[0] == (0, 0, 0)) == is_black and (0, 0, 0) not in palette[1:]
    assert palette[is_black:] == distinct_colors(3 - is_black)


def test_own_data_and_the_demo_have_distinct_colors(folder_root):
    classes, palette = class_names("folder", str(folder_root))
    assert palette == distinct_palette(classes) == build_dataset("folder", "train", root=str(folder_root)).palette
    assert Demo.palette == distinct_palette(Demo.classes)


def test_voc_keeps_its_colors():
    assert class_names("pascal") == (VOC_CLASSES, voc_palette(21)) and voc_palette(21)[1] == (128, 0, 0)


def test_classes_txt_gives_colors(folder_root):
    (folder_root / "classes.txt").write_text("ground 1 2 3\nbrick wall, 4,5, 6\nsky\t255 255 0\n\n")
    dataset = build_dataset("folder", "train", root=str(folder_root))
    assert dataset.classes == ("ground", "brick wall", "sky")
    assert dataset.palette == [(1, 2, 3), (4, 5, 6), (255, 255, 0)]
    assert class_names("folder", str(folder_root)) == (dataset.classes, dataset.palette)


@pytest.mark.parametrize("palette", [distinct_colors(3), [(1, 2, 3)] * 3])
@pytest.mark.parametrize("classes", [["a", "b", "c"], ["zone 1 2 3", "a", "b"], ["a 1 2 3", "a 1 2 4", "b c"]])
def test_rendered_lines_are_read_again(tmp_path, classes, palette):
    for with_colors in (False, True):
        lines = render_class_lines(classes, palette, with_colors=with_colors).splitlines()
        found, colors = parse_class_lines(tmp_path, lines)
        assert found == classes and colors in ([palette] if with_colors else [palette, None])


@pytest.mark.parametrize(("lines", "parts"), [
    (["road", "zone 1 2 3"], ("no color for 'road'", "three numbers at the end of a line are a color")),
    (["a 1 2 3", "b 0 0 256"], ("gives 'b' the color 0,0,256", "0 to 255")),
])  # fmt: skip
def test_colors_that_are_incomplete(tmp_path, lines, parts):
    with pytest.raises(UserError) as error:
        parse_class_lines(tmp_path / "classes.txt", lines)
    assert all(part in error.value.line() for part in parts)
