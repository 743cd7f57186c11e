"""`python -m dataloaders.show` and first_batch.png show the samples of the loader, and count the classes right."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from running import error_line, in_process, said
from sample_data import save_label

import train
from benchmarks.kill_resume import content, differences
from dataloaders import TrainDataset, build_dataset, show
from dataloaders.checks.counts import class_counts
from dataloaders.transforms import RandomScaleCrop
from utils.palettes import voc_palette
from utils.run.recorder import Recorder
from utils.scoring.plots import plot_classes
from utils.scoring.samples import IGNORED, PADDING, Sample, panels, sample_sheet

FILL = (1, 254, 3)  # a color that no image has: where it is, there is padding
STRIPES = {name: {hatch.dark, hatch.light} for name, hatch in (("padding", PADDING), ("ignored", IGNORED))}


@pytest.fixture
def data(folder_root):
    return ["--dataset", "folder", "--data-root", str(folder_root)]


def samples_of(root, keys, *, crop_size=(33, 33), seed=1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(image [h, w, 3], label [h, w], whether a pixel is padding) of training samples."""
    samples = TrainDataset(
        build_dataset("folder", "train", root=str(root)), RandomScaleCrop(crop_size, fill=FILL), seed=seed
    )
    pairs = [(samples[key]["image"].numpy().transpose(1, 2, 0), samples[key]["label"].numpy()) for key in keys]
    return [(image, label, (image == FILL).all(-1)) for image, label in pairs]


def first_keys(count: int, epoch: int = 0) -> list[tuple[int, int]]:
    """Keys of the first of six images in the order of an epoch (docs/data.md), with seed 1."""
    return [(epoch, int(index)) for index in np.random.default_rng((1, epoch)).permutation(6)[:count]]


def is_drawn(sheet: np.ndarray, image: np.ndarray, padding: np.ndarray) -> bool:
    """Whether `image`, enlarged by some whole factor, is in `sheet`, with stripes exactly where `padding` is."""
    for factor in range(1, 1 + sheet.shape[1] // image.shape[1]):
        big, mask = (part.repeat(factor, 0).repeat(factor, 1) for part in (image, padding))
        for y, x in places(sheet, big, mask):
            shown = sheet[y : y + mask.shape[0], x : x + mask.shape[1]]
            if np.array_equal(shown[~mask], big[~mask]):
                return colors(shown[mask]) <= STRIPES["padding"]
    return False


def places(sheet: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(y, x) of the places in `sheet` that agree with `image` in 50 pixels outside `mask`."""
    height, width = (max(0, whole - part + 1) for whole, part in zip(sheet.shape[:2], mask.shape, strict=True))
    found = np.argwhere(np.ones((height, width), bool))
    for dy, dx in np.random.default_rng(0).permutation(np.argwhere(~mask))[:50]:
        found = found[(sheet[found[:, 0] + dy, found[:, 1] + dx] == image[dy, dx]).all(1)]
    return found


def colors(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, pixels.reshape(-1, 3).tolist()))


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.slow
def test_the_samples_of_the_loader_are_drawn(data, folder_root, tmp_path, capsys):
    flags = ["--crop-size", "40", "70", "--count", "6", "--workers", "0", "--out", str(tmp_path / "s.png")]
    assert show.main([*data, *flags, "--epoch", "3"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "s.png"), str(tmp_path / "s_histogram.png")]
    sheet, samples = read(tmp_path / "s.png"), samples_of(folder_root, first_keys(6, epoch=2), crop_size=(40, 70))
    assert all(is_drawn(sheet, image, padding) for image, _, padding in samples)
    sides = {(padding[0, 0], padding[0, -1]) for *_, padding in samples}
    assert sides == {(False, False), (False, True), (True, False)}  # without, as padded, flipped
    assert not is_drawn(sheet, *samples_of(folder_root, first_keys(1, epoch=0), crop_size=(40, 70))[0][::2])


def test_at_scale_1_padding_is_hatched_exactly_where_it_is(folder_root):
    for image, label, padding in samples_of(folder_root, first_keys(6), crop_size=(60, 60)):
        sample = Sample(image.transpose(2, 0, 1), label, padding, "", "")
        drawn, drawn_label = map(np.asarray, panels(sample, voc_palette(3), (60, 60)))
        assert padding.any() and np.array_equal(drawn[~padding], image[~padding])
        assert colors(drawn[padding]) == colors(drawn_label[padding]) == STRIPES["padding"]
        ignored = (label == 255) & ~padding
        assert ignored.any() and colors(drawn_label[ignored]) == STRIPES["ignored"]
        assert not colors(drawn_label[~padding & ~ignored]) & STRIPES["padding"]


def test_no_ignored_pixel_is_lost_where_a_label_shrinks():
    label = np.zeros((513, 513), np.uint8)
    spots = np.random.default_rng(0).integers(0, 513, (20, 2))
    label[tuple(spots.T)] = 255
    sample = Sample(np.full((3, 513, 513), 90, np.uint8), label, np.zeros(label.shape, bool), "", "")
    image, drawn = map(np.asarray, panels(sample, [(200, 0, 0)] * 2, (187, 187)))
    for y, x in (2 * spots + 1) * 187 // (2 * 513):  # by the centers of the pixels
        assert colors(drawn[y, x]) <= STRIPES["ignored"]
    assert (image == 90).all()


def test_whole_images_of_other_splits_are_drawn(data, folder_root, tmp_path):
    assert show.main([*data, "--split", "val", "--no-histogram", "--out", str(tmp_path / "v.png")]) == 0
    sheet, dataset = read(tmp_path / "v.png"), build_dataset("folder", "val", root=str(folder_root))
    for index in range(2):
        assert is_drawn(sheet, np.asarray(dataset.read(index)[0]), np.zeros((36, 48), bool))
    assert [path.name for path in tmp_path.glob("*.png")] == ["v.png"]


def test_a_seed_always_gives_the_same_image(data, tmp_path):
    images = {}
    for name, flags in {"a": [], "b": [], "seed": ["--seed", "2"], "epoch": ["--epoch", "2"]}.items():
        out = tmp_path / f"{name}.png"
        assert show.main([*data, "--no-histogram", "--crop-size", "33", "--out", str(out), *flags]) == 0
        images[name] = out.read_bytes()
    assert images["a"] == images["b"] and len(set(images.values())) == 3


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, original = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *given, **more: saved.append(self) or original(self, *given, **more)
    )
    return saved


def bars(figure: Figure, side: int) -> list[float]:
    """The lengths of the bars in the left (0) or right (1) half of each column."""
    return [bar.get_width() for axes in figure.axes[side::2] for bar in axes.patches]


def test_the_histogram_equals_an_independent_count(data, folder_root, tmp_path, figures):
    for path in (folder_root / "SegmentationClass").glob("t*"):
        label = read(path).copy()
        label[label == 1] = 0  # the second class does not occur
        save_label(label, path)
    save_label(np.full((36, 48), 255, np.uint8), folder_root / "SegmentationClass/t.3.png")
    for _ in range(2):  # counted, then cached
        assert show.main([*data, "--workers", "0", "--out", str(tmp_path / "s.png")]) == 0
    labels = [read(folder_root / f"SegmentationClass/t.{n}.png") for n in range(6)]
    shares = [100 * np.mean([label == value for label in labels]) for value in (0, 1, 2, 255)]
    for figure in figures:
        assert bars(figure, 0) == pytest.approx(shares)
        assert bars(figure, 1)[:3] == [sum((label == n).any() for label in labels) for n in range(3)]
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts.count("does not occur") == 1
        names = figure.axes[0].get_yticklabels()
        assert [name.get_text() for name in names] == ["ground  0", "wall  1", "sky  2", "ignored  255"]
        assert [name.get_color() == "red" for name in names] == [False, True, False, False]


def test_changed_labels_are_counted_again(folder_root):
    def count() -> list[int]:
        return class_counts(build_dataset("folder", "train", root=str(folder_root)), workers=0).images

    before = count()
    for path in (folder_root / "SegmentationClass").glob("t*"):
        save_label(np.full((36, 48), 2, np.uint8), path)
    assert before != count() == [0, 0, 6]


@pytest.mark.parametrize(
    ("num_classes", "num_columns"), [(2, 1), (21, 1), pytest.param(150, 3, marks=pytest.mark.slow)]
)
def test_a_histogram_has_the_classes_in_order_at_a_readable_size(num_classes, num_columns, tmp_path, figures):
    pixels = [10**8 >> (number % 25) for number in range(num_classes)]
    names = [f"class {number}" for number in range(num_classes)]
    plot_classes(
        tmp_path / "h.png", pixels, [1] * num_classes, ignored=7, num_images=1, classes=names,
        palette=voc_palette(num_classes), title="",
    )  # fmt: skip
    (figure,) = figures
    labels = [label for axes in figure.axes[::2] for label in axes.get_yticklabels()]
    assert [label.get_text().split("  ")[0] for label in labels] == [*names, "ignored"]
    assert bars(figure, 0) == pytest.approx(100 * np.array([*pixels, 7]) / (sum(pixels) + 7))
    assert len(figure.axes) == 2 * num_columns
    for axes in figure.axes[::2]:  # no name overlaps the next one
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize(
    ("flags", "text"),
    [(["--out", "s.jpg"], "--out s.jpg: give a name that ends in .png"),
     (["--out", "missing/s.png"], "cannot write missing/s.png"),
     (["--out", "s.png", "--count", "0"], "'0' is not a whole number above 0"),
     (["--out", "s.png", "--crop-size", "1", "2", "3"], "--crop-size 1 2 3: give N, or H W"),
     (["--out", "s.png", "--split", "val", "--base-size", "9"], "--base-size: --split val shows whole images"),
     (["--out", "s.png", "--split", "other"], "other.txt"),
     (["--out", "s.png", "--data-root", "nowhere"], "nowhere")],
)  # fmt: skip
def test_bad_input_is_one_line(data, tmp_path, monkeypatch, capsys, flags, text):
    monkeypatch.chdir(tmp_path)
    try:
        status = show.main([*data, *flags])
    except SystemExit as stop:
        status = stop.code
    assert status == 2 and text in error_line(capsys.readouterr().err)
    assert not list(tmp_path.glob("s.*"))


def test_labels_that_are_invalid_or_missing(data, folder_root, tmp_path, capsys):
    save_label(np.full((36, 48), 9, np.uint8), folder_root / "SegmentationClass/v.1.png")
    flags = ["--split", "val", "--out", str(tmp_path / "s.png")]
    assert show.main([*data, *flags, "--count", "1", "--seed", "2"]) == 2  # the seed: another image is drawn
    assert "v.1.png holds 9" in error_line(capsys.readouterr().err)
    (folder_root / "ImageSets/Segmentation/test.txt").write_text("v.0\nv.1\n")
    for path in (folder_root / "SegmentationClass").glob("v*"):
        path.unlink()
    assert show.main([*data, "--split", "test", "--out", str(tmp_path / "t.png")]) == 0
    assert capsys.readouterr().out.endswith("folder test has no labels: no histogram\n")


@pytest.mark.slow
def test_a_sheet_takes_samples_of_any_size_and_number():
    names, palette = ["ground", "a very long name of a class"], voc_palette(2)
    for count, size in ((1, (7, 9)), (3, (900, 20)), (16, (97, 97)), (40, (20, 2000))):
        label = np.full(size, 255, np.uint8)
        sample = Sample(np.zeros((3, *size), np.uint8), label, label == 0, "an id" * 50, "how it was made")
        image = sample_sheet([sample] * count, names, palette, title="title")
        assert image.width <= 1600 and image.height < 2000


def test_a_run_draws_its_first_batch(data, folder_root, tmp_path):
    status, folder = in_process(data, tmp_path / "run", "--epochs", "2", "--no-val")
    sheet = read(folder / "first_batch.png")
    assert status == 0
    assert all(is_drawn(sheet, *sample[::2]) for sample in samples_of(folder_root, first_keys(2)))
    assert not is_drawn(sheet, *samples_of(folder_root, first_keys(3)[2:])[0][::2])


@pytest.mark.slow
def test_drawing_changes_no_bit_of_a_run(data, tmp_path, monkeypatch):
    _, drawn = in_process(data, tmp_path / "drawn", "--epochs", "1")
    monkeypatch.setattr(train, "first_batch", lambda _loader: None)
    monkeypatch.setattr(Recorder, "draw_first_batch", lambda *_: None)
    _, plain = in_process(data, tmp_path / "plain", "--epochs", "1")
    assert (drawn / "first_batch.png").exists() and not (plain / "first_batch.png").exists()
    assert differences(content(drawn), content(plain)) == []


def test_a_resumed_run_does_not_draw(data, tmp_path):
    _, folder = in_process(data, tmp_path / "run", "--epochs", "1", "--max-steps", "1", "--no-val")
    (folder / "first_batch.png").unlink()
    assert in_process(data, tmp_path / "run", "--resume", "auto", "--max-steps", "2", "--no-val") == (0, folder)
    assert not (folder / "first_batch.png").exists()


def test_a_full_disk_costs_one_note(data, tmp_path, monkeypatch, capsys):
    """Full when the first batch is drawn, and no more when the first checkpoint is written."""
    from utils.run import writer

    original, failures = writer.write_atomically, [OSError(28, "No space left on device")]

    def write(path, content) -> None:
        if failures:
            raise failures.pop()
        original(path, content)

    monkeypatch.setattr(writer, "write_atomically", write)
    status, folder = in_process(data, tmp_path / "run", "--epochs", "1", "--no-val")
    lines = [line for line in said(capsys.readouterr().err) if "cannot write" in line]
    assert status == 0 and len(lines) == 1 and "first_batch.png (No space left on device)" in lines[0]
    assert Image.open(folder / "first_batch.png").width > 300
