"""Files that are decoded without Pillow have its bits; all others come from Pillow, with its errors."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataloaders import build_dataset
from utils import plain_files
from utils.errors import UserError
from utils.images import open_image, open_label, open_label_pixels, open_pixels

RANDOM = np.random.default_rng(0)
PHOTO = Image.fromarray(RANDOM.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((83, 61), Image.Resampling.BICUBIC)
LABEL = np.kron(RANDOM.integers(0, 21, (5, 7), dtype=np.uint8), np.ones((8, 9), np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def jpeg(image: Image.Image = PHOTO, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def png(pixels: np.ndarray | Image.Image, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG", **options)
    return file.getvalue()


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert("P")
    image.putpalette(bytes(range(256)) * 3)
    image.putdata(pixels.ravel().tolist())
    return image


def unfiltered(pixels: np.ndarray, level: int = 6) -> bytes:
    """A gray PNG file whose rows have no filter."""
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    content = png(pixels)
    header = content[: content.index(b"IDAT") - 4]
    data = b"IDAT" + zlib.compress(rows, level)
    return header + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) + content[-12:]


def outcome(opener, path):
    """The pixels and the transpose, or the error."""
    try:
        result = opener(path)
    except UserError as error:
        return type(error), str(error)
    pixels, *transpose = result if isinstance(result, tuple) else (result,)
    return np.asarray(pixels).tolist(), transpose


PLAIN = {
    "4:4:4": jpeg(subsampling=0), "4:2:2": jpeg(subsampling=1), "4:2:0": jpeg(subsampling=2, quality=95),
    "gray": jpeg(PHOTO.convert("L")), "progressive": jpeg(progressive=True), "RGB": jpeg(keep_rgb=True),
    "restarts": jpeg(restart_marker_rows=1), "upright": jpeg(exif=exif(1)), "comment": jpeg(comment=b"\xff\xda" * 9),
}  # fmt: skip
LEFT_TO_PILLOW = {
    "CMYK": jpeg(PHOTO.convert("CMYK")), "turned": jpeg(exif=exif(6)), "truncated": jpeg()[:900], "start": jpeg()[:30],
    "damaged": jpeg()[:700] + b"\xff\xff\x00\xff" * 9 + jpeg()[736:], "PNG": png(PHOTO), "empty": b"", "text": b"image",
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_usual_jpeg_files_become_arrays_with_pillows_bits(name, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(PLAIN[name])
    assert isinstance(open_pixels(path)[0], np.ndarray)
    assert outcome(open_pixels, path) == outcome(open_image, path)


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_other_images_are_pillows_with_its_errors(name, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(LEFT_TO_PILLOW[name])
    assert outcome(open_pixels, path) == outcome(open_image, path)


def test_a_missing_file_is_the_same_error(tmp_path):
    path = tmp_path / "image.jpg"
    assert outcome(open_pixels, path) == outcome(open_image, path)
    assert outcome(open_label_pixels, path) == outcome(open_label, path)


def test_without_a_decoder_of_equal_bits_pillow_decodes(tmp_path, monkeypatch):
    import simplejpeg

    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg())
    plain_files.jpeg_decoder.cache_clear()
    original = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda content: original(content, fastupsample=True))
    try:
        assert isinstance(open_pixels(path)[0], Image.Image)
    finally:
        plain_files.jpeg_decoder.cache_clear()


DAMAGED = bytearray(unfiltered(LABEL, level=0))  # rows as they are, so that a changed byte is one changed pixel
DAMAGED[len(DAMAGED) // 2] ^= 1
LABELS = {
    "palette": (png(palette(LABEL)), True), "gray": (unfiltered(LABEL), True),
    "filtered": (png(PHOTO.convert("L"), optimize=True), False), "16 colors": (png(palette(LABEL), bits=4), False),
    "bilevel": (png(Image.fromarray(LABEL > 9)), False), "RGB": (png(PHOTO), False), "JPEG": (jpeg(), False),
    "damaged": (bytes(DAMAGED), False), "truncated": (png(palette(LABEL))[:-20], False),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_have_pillows_values_or_errors(name, tmp_path):
    content, is_array = LABELS[name]
    path = tmp_path / "label.png"
    path.write_bytes(content)
    assert outcome(open_label_pixels, path) == outcome(open_label, path)
    if is_array:
        assert isinstance(open_label_pixels(path), np.ndarray)


def test_samples_read_what_a_dataset_that_overrides_open_label_returns(folder_root):
    data = build_dataset("folder", "train", root=str(folder_root))
    assert isinstance(data.read_pixels(0)[1], np.ndarray)

    class Inverted(type(data)):
        def open_label(self, index):
            return super().open_label(index).point([2, 1, 0, *range(3, 256)])

    inverted = Inverted(folder_root, "train")
    for index in range(len(data)):
        for pixels, image in zip(inverted.read_pixels(index), inverted.read(index), strict=True):
            assert np.array_equal(pixels, image)
    assert not np.array_equal(inverted.read_pixels(0)[1], data.read_pixels(0)[1])
