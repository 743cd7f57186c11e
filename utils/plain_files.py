"""Usual JPEG files and label PNG files to arrays: Pillow's bits in less time. Everything else is left to Pillow.

Pillow holds 4 bytes a pixel, so an array of its image is a copy; simplejpeg writes the array itself. It is the same
decoder, libjpeg-turbo, with the same settings. Without simplejpeg, and where the two do not agree (Pillow may be built
with another JPEG library), Pillow decodes.
"""

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

APP1, SOS, SOF = 0xE1, 0xDA, (0xC0, 0xC1, 0xC2)  # SOF: baseline, extended, progressive; all by Huffman codes
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_DEFLATED = 1 << 18  # bytes: they become at most 1032 times as many, which fit into memory
PNG_LABELS = ((8, 0, 0, 0, 0), (8, 3, 0, 0, 0))  # 8 bits of gray or palette, deflate, the usual filters, not interlaced


class JPEGHeader(NamedTuple):
    is_plain: bool  # 8-bit gray or color of three channels, and not too large for Pillow
    has_metadata: bool  # EXIF or XMP, which may hold an orientation


def decode_jpeg(content: bytes) -> np.ndarray | None:
    """uint8 [H, W, 3] of a JPEG file, not turned upright; None if Pillow must decode it or report its faults."""
    decoder = jpeg_decoder()
    if decoder is None:
        return None
    try:
        return decoder(content)
    except ValueError:  # also for damage that Pillow only warns about
        return None


def read_jpeg_header(content: bytes) -> JPEGHeader:
    """From the segments before the pixels (ITU-T T.81, annex B)."""
    is_plain = has_metadata = False
    try:
        for marker, start in jpeg_segments(content):
            has_metadata |= marker == APP1
            if marker in SOF:
                precision, height, width, num_channels = struct.unpack_from(">BHHB", content, start)
                is_plain = precision == 8 and num_channels in (1, 3) and 0 < height * width <= max_pixels()
    except (struct.error, IndexError, ValueError):
        return JPEGHeader(False, has_metadata)
    return JPEGHeader(is_plain, has_metadata)


def jpeg_segments(content: bytes) -> Iterator[tuple[int, int]]:
    """(marker, where its content begins) of each segment before the first scan. Raises ValueError if one is missing."""
    position = 2  # after the marker of the start
    while content[position + 1] != SOS:
        if content[position] != 0xFF:
            raise ValueError("no marker")
        (length,) = struct.unpack_from(">H", content, position + 2)
        yield content[position + 1], position + 4
        position += 2 + length


def max_pixels() -> float:
    """Above it Pillow warns that the file may be an attack on memory."""
    return Image.MAX_IMAGE_PIXELS or float("inf")


@functools.cache
def jpeg_decoder() -> Callable[[bytes], np.ndarray] | None:
    """simplejpeg's decoder if it is installed and gives Pillow's bits; compared once a process, in 25 ms."""
    try:
        from simplejpeg import decode_jpeg as decode
    except ImportError:
        return None
    pixels = np.random.default_rng(0).integers(0, 256, (37, 43, 3), dtype=np.uint8)
    color = Image.fromarray(pixels).resize((75, 53), Image.Resampling.BICUBIC)
    for image, subsampling in ((color.convert("L"), 0), (color, 0), (color, 1), (color, 2)):  # 4:4:4, 4:2:2, 4:2:0
        file = io.BytesIO()
        image.save(file, "JPEG", subsampling=subsampling)
        if not np.array_equal(decode(file.getvalue()), np.asarray(Image.open(file).convert("RGB"))):
            return None
    return decode


def decode_png_label(content: bytes) -> np.ndarray | None:
    """uint8 [H, W], read-only, of an 8-bit gray or palette PNG file without row filters; None: Pillow must decode it.

    Encoders filter no palette images (PNG specification, section 12.7). Then the rows are what inflating returns.
    """
    chunks = png_chunks(content)
    if chunks is None or len(chunks[1]) > MAX_DEFLATED:
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[0])
    num_bytes = height * (1 + width)
    if tuple(kind) not in PNG_LABELS or not 0 < width * height <= max_pixels():
        return None
    try:
        # Without zlib's header (2 bytes) and checksum (4), which takes half of the time: each chunk has one already
        rows = zlib.decompress(chunks[1][2:-4], -zlib.MAX_WBITS, num_bytes)
    except zlib.error:
        return None
    if len(rows) != num_bytes:
        return None
    pixels = np.frombuffer(rows, np.uint8).reshape(height, 1 + width)  # the first byte of a row is its filter
    return None if pixels[:, 0].any() else pixels[:, 1:]


def png_chunks(content: bytes) -> tuple[bytes, bytes] | None:
    """(content of IHDR, that of all IDAT together); None if a chunk is damaged."""
    header, data, position = b"", [], len(PNG_START)
    try:
        while True:
            length, name = struct.unpack_from(">I4s", content, position)
            end = position + 8 + length
            if zlib.crc32(content[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
                return None
            if name == b"IHDR":
                header = content[position + 8 : end]
            elif name == b"IDAT":
                data.append(content[position + 8 : end])
            elif name == b"IEND":
                return (header, b"".join(data)) if len(header) == 13 else None
            position = end + 4
    except struct.error:
        return None
