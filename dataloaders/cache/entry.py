"""A cached sample as bytes: a header, the image [H, W, 3], the label [H, W], and zeros up to a multiple of 8 bytes."""

import struct
from typing import NamedTuple

import numpy as np

from dataloaders.cache.keys import Key

# Format, name and version of the key, boot, checksum, height, width
HEADER = struct.Struct("<8s16s16s16sQII")
BOOT_OFFSET = 40
FORMAT = b"deeplab1"
START = 128  # of the pixels, at a multiple of 8 bytes


class Header(NamedTuple):
    """`boot` is that of the machine that wrote the pixels, `checksum` the sum of their 8-byte words."""

    format: bytes
    name: bytes
    version: bytes
    boot: bytes
    checksum: int
    height: int
    width: int

    @property
    def num_bytes(self) -> int:
        """Of the whole entry."""
        return entry_bytes(self.height, self.width)

    @property
    def key(self) -> Key:
        return Key(self.name, self.version)


class Arrays(NamedTuple):
    image: np.ndarray  # uint8 [H, W, 3]
    label: np.ndarray  # uint8 [H, W]


def entry_bytes(height: int, width: int) -> int:
    return START + -(-4 * height * width // 8) * 8


def encode(key: Key, image: np.ndarray, label: np.ndarray, *, boot: bytes) -> np.ndarray:
    """The entry of an image, uint8 [H, W, 3], and its label, uint8 [H, W]: uint8 [num_bytes]."""
    height, width = label.shape
    entry = np.zeros(entry_bytes(height, width), np.uint8)
    pixels = view_pixels(entry, height, width)
    pixels.image[:], pixels.label[:] = image, label
    header = HEADER.pack(FORMAT, *key, boot, checksum(entry), height, width)
    entry[: HEADER.size] = np.frombuffer(header, np.uint8)
    return entry


def read_header(entry: bytes | memoryview) -> Header | None:
    """The header at the start of `entry`; None if there is none."""
    if len(entry) < HEADER.size:
        return None
    header = Header(*HEADER.unpack_from(entry))
    return header if header.format == FORMAT else None


def view_pixels(entry: np.ndarray, height: int, width: int) -> Arrays:
    """Views of `entry`, uint8 [num_bytes]."""
    middle, end = START + 3 * height * width, START + 4 * height * width
    return Arrays(entry[START:middle].reshape(height, width, 3), entry[middle:end].reshape(height, width))


def checksum(entry: np.ndarray) -> int:
    """The sum of all words of the pixels: a block that the disk has not written changes it."""
    return int(entry[START:].view(np.uint64).sum(dtype=np.uint64))
