"""Which sample an entry of the cache holds, and whether it still holds what decoding would give now."""

import functools
import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

import PIL
from PIL import features

from dataloaders.base import SegmentationDataset

# Raise it when the same files get other pixels by a change outside of the file of their dataset
VERSION = 1


class Key(NamedTuple):
    """An entry of the same `name` and another `version` is of the same sample, but stale."""

    name: bytes  # 16: the files, and the dataset whose classes they are decoded to
    version: bytes  # 16: sizes and times of the files, and what decodes them


def sample_key(dataset: SegmentationDataset, index: int) -> Key | None:
    """None if a file of the sample is missing."""
    dataset, index = dataset.source(index)
    try:
        stamp = dataset.sample_stamp(index)
    except OSError:  # `read` raises it with its fix
        return None
    files = f"{os.path.abspath(dataset.image_path(index))}\n{dataset.describe_label(index)}"
    return Key(digest(f"{meaning(dataset)}\n{files}"), digest(f"{decoder(type(dataset))}\n{stamp}"))


def meaning(dataset: SegmentationDataset) -> str:
    kind = type(dataset)
    return f"{kind.__module__}.{kind.__qualname__} {len(dataset.classes)} {dataset.first_value} {dataset.has_labels}"


@functools.cache
def decoder(kind: type[SegmentationDataset]) -> str:
    """Changes with the libraries that decode images, and with the source files of the class and of those it extends."""
    kinds = [base for base in kind.__mro__ if issubclass(base, SegmentationDataset) and base is not SegmentationDataset]
    sources = [hashlib.sha256(Path(sys.modules[base.__module__].__file__).read_bytes()).hexdigest() for base in kinds]
    libraries = [PIL.__version__, *(features.version(name) for name in ("jpg", "libjpeg_turbo", "webp"))]
    return f"{VERSION} {libraries} {sources}"


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest()
