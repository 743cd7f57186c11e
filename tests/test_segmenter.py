"""Segmenter: what people pass to it, several images, batches, threads, notebooks."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import write_network

from modeling.inputs import to_rgb_image
from modeling.segmenter import Segmenter
from utils.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (30, 44, 1), dtype=np.uint8)


@pytest.fixture
def segmenter(folder_network):
    return Segmenter(folder_network, "cpu")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    return path


def planes(array: np.ndarray) -> torch.Tensor:
    """[H, W, C] -> [C, H, W]."""
    return torch.from_numpy(array).permute(2, 0, 1)


def test_an_image_may_be_given_in_many_forms(photo):
    forms = [
        photo, str(photo), photo.read_bytes(), bytearray(photo.read_bytes()), io.BytesIO(photo.read_bytes()),
        Image.open(photo), PIXELS, PIXELS / 255, (PIXELS / 255).astype(np.float32), np.dstack([PIXELS, ALPHA]),
        Image.fromarray(np.dstack([PIXELS, ALPHA])), np.asfortranarray(PIXELS), PIXELS[:, ::-1][:, ::-1],
        planes(PIXELS), planes(PIXELS) / 255, planes(PIXELS).div(255).half(), planes(np.dstack([PIXELS, ALPHA])),
        (planes(PIXELS) / 255).requires_grad_(),
    ]  # fmt: skip
    for form in forms:
        assert np.array_equal(np.asarray(to_rgb_image(form)), PIXELS), type(form)
    with photo.open("rb") as file:
        assert np.array_equal(np.asarray(to_rgb_image(file)), PIXELS)


def test_gray_has_one_channel_or_none():
    gray = PIXELS[..., 0]
    for form in (gray, gray[..., None], gray / 255, torch.from_numpy(gray), torch.from_numpy(gray)[None]):
        assert np.array_equal(np.asarray(to_rgb_image(form)), np.dstack([gray] * 3))


@pytest.mark.parametrize(
    ("values", "named"),
    [(PIXELS.astype(np.float32), "from 0 to 255"), (PIXELS / 128 - 1, "from -1 to"), (PIXELS * np.nan, "nan to nan")],
)
def test_floats_outside_0_to_1_are_refused(values, named):
    for form in (values, planes(values)):
        with pytest.raises(UserError, match=r"the array has values .*: give floats in 0\.\.1, or uint8") as caught:
            to_rgb_image(form)
        assert named in str(caught.value)


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("https://example.org/a.jpg", "https://example.org/a.jpg is a URL: download it first, and give the file"),
        (b"no image", "the bytes of the image cannot be read as an image (no known format): replace it"),
        (io.StringIO("text"), "the file is open as text: open it with mode 'rb'"),
        ([PIXELS, None], "NoneType is no image: give a path"),
    ],
)
def test_what_cannot_be_read_is_one_line(segmenter, image, line):
    with pytest.raises(UserError) as caught:
        segmenter(image)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_several_images_give_a_list_and_stream_reads_one_at_a_time(segmenter, photo):
    expected, mirrored = segmenter(PIXELS).labels, segmenter(PIXELS[:, ::-1]).labels
    assert not np.array_equal(expected, mirrored)
    stack = np.stack([PIXELS, PIXELS[:, ::-1]])
    several = ([PIXELS, PIXELS[:, ::-1]], stack, torch.from_numpy(stack).permute(0, 3, 1, 2), iter(stack), tuple(stack))
    for images in several:
        first, second = segmenter(images)
        assert np.array_equal(first.labels, expected) and np.array_equal(second.labels, mirrored)
    assert segmenter([]) == [] and len(segmenter([photo])) == 1
    asked = []
    stream = segmenter.stream(asked.append(number) or PIXELS for number in range(5))
    assert asked == [] and np.array_equal(next(stream).labels, expected) and asked == [0]


def test_a_folder_gives_its_images_by_name(segmenter, tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for name in ("b.png", "a.bmp", "below/c.png", ".hidden.png"):
        Image.fromarray(PIXELS).save(folder / name)
    (folder / "notes.txt").touch()
    assert [result.path for result in segmenter(folder)] == [folder / "a.bmp", folder / "b.png"]
    assert segmenter(folder / "b.png").path == folder / "b.png" and segmenter(PIXELS).path is None
    for name in ("b.png", "a.bmp"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="is a folder without images, with"):
        segmenter(str(folder))


def test_images_of_equal_size_run_as_one_batch_with_the_same_results(folder_network):
    random = np.random.default_rng(3)
    sizes = [(30, 44), (44, 30), (30, 44), (30, 44), (17, 20), (30, 44), (44, 30)]
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    batched, batches = Segmenter(folder_network, "cpu", batch_size=3), []
    batched.predictor.model.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    results = list(batched.stream(images))
    assert sorted(batches) == [1, 1, 2, 3]
    for result, alone in zip(results, Segmenter(folder_network, "cpu")(images), strict=True):
        assert np.array_equal(result.labels, alone.labels)
        np.testing.assert_allclose(result.scores, alone.scores, atol=1e-3)  # convolutions of a batch round otherwise


@pytest.mark.parametrize("views", [{}, {"scales": [0.5, 1.0], "flip": True}, {"window": 17}])
def test_labels_are_the_same_without_scores(folder_network, views):
    with_scores, without = (Segmenter(folder_network, "cpu", scores=scores, **views) for scores in (True, False))
    result = without(PIXELS)
    assert result.scores is None and np.array_equal(result.labels, with_scores(PIXELS).labels)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_several_threads_share_a_segmenter(folder_network, amp):
    segmenter, random = Segmenter(folder_network, "cpu", amp=amp, scales=(0.5, 1.0)), np.random.default_rng(4)
    images = [random.integers(0, 256, (30 + number, 44, 3), dtype=np.uint8) for number in range(16)]
    expected = segmenter(images)
    with ThreadPoolExecutor(4) as pool:
        for result, wanted in zip(pool.map(segmenter, images), expected, strict=True):
            assert np.array_equal(result.labels, wanted.labels) and np.array_equal(result.scores, wanted.scores)


def test_bf16_gives_other_scores_and_mostly_the_same_labels(folder_network):
    """Mostly, as the random network amplifies rounding."""
    exact, half = (Segmenter(folder_network, "cpu", amp=amp)(PIXELS) for amp in ("off", "bf16"))
    assert not np.array_equal(exact.scores, half.scores) and half.scores.dtype == np.float32
    assert (exact.labels == half.labels).mean() > 0.8


def test_a_notebook_shows_the_overlay(segmenter):
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.user_ns |= {"segmenter": segmenter, "image": PIXELS}
    result = shell.run_cell("segmenter(image)").result
    shown, _ = shell.display_formatter.format(result)
    overlay = Image.open(io.BytesIO(shown["image/png"]))
    assert np.array_equal(np.asarray(overlay), np.asarray(result.overlay()))
    assert shown["text/plain"].startswith("<Segmentation of an image, 44x30: ") and "%" in shown["text/plain"]


def test_a_notebook_gets_a_small_image(segmenter):
    result = segmenter(np.zeros((64, 2048, 3), np.uint8))
    assert Image.open(io.BytesIO(result._repr_png_())).size == (1024, 32)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "`batch_size` 0: give a whole number above 0"),
        ({"batch_size": 2.0}, "`batch_size` 2.0: give"),
        ({"scales": ()}, "`scales` (): give numbers above 0"),
        ({"scales": "0.5"}, "`scales` '0.5': give numbers above 0"),
        ({"scales": [0.5, 0]}, "`scales` [0.5, 0]: give numbers above 0"),
        ({"amp": "half"}, "`amp` 'half' is unknown: give auto, off, bf16, fp16"),
    ],
)
def test_arguments_are_checked_before_the_weights_are_read(arguments, text):
    with pytest.raises(UserError) as caught:
        Segmenter("nowhere.pth", "cpu", **arguments)
    assert text in str(caught.value)


def test_errors_about_weights_name_parameters_of_python(tmp_path):
    path = write_network(tmp_path / "n.pth", ("a", "b", "c"))
    content = torch.load(path)
    del content["state_dict"]["decoder.classifier.bias"]
    torch.save(content, path)
    with pytest.raises(UserError, match="or `is_partial` to take what fits") as caught:
        Segmenter(path, "cpu")
    assert "--" not in str(caught.value)
    assert Segmenter(path, "cpu", is_partial=True)(PIXELS).labels.shape == (30, 44)


def test_a_batch_that_exceeds_the_memory_says_so(segmenter, monkeypatch):
    def exceed(pixels):
        raise torch.OutOfMemoryError

    segmenter.batch_size = 2
    monkeypatch.setattr(segmenter, "predict", exceed)
    with pytest.raises(UserError, match="`batch_size`: 2 images of 44x30 exceed the memory: lower it"):
        segmenter([PIXELS] * 2)
    with pytest.raises(torch.OutOfMemoryError):
        segmenter(PIXELS)


def heic(path: Path) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    smooth = Image.fromarray(PIXELS).resize((10, 8)).resize((64, 48), Image.Resampling.BICUBIC)
    pillow_heif.from_pillow(smooth).save(path, quality=95, exif=exif.tobytes())
    return path


def test_heic_is_read_where_pillow_heif_is_installed(segmenter, tmp_path):
    path = heic(tmp_path / "phone.heic")
    image = to_rgb_image(path)
    assert image.size == (48, 64)
    assert np.array_equal(np.asarray(to_rgb_image(path.read_bytes())), np.asarray(image))
    assert [result.path for result in segmenter(tmp_path / "")] == [path]


def test_heic_without_pillow_heif_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name not in ("HEIF", "AVIF")])
    wanted = "is a HEIC image: pip install pillow-heif, or save it as JPEG"
    for form, name in ((path, str(path)), (path.read_bytes(), "the bytes of the image")):
        with pytest.raises(UserError) as caught:
            to_rgb_image(form)
        assert str(caught.value) == f"{name} {wanted}"
