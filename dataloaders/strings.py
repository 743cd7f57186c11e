"""Strings and paths of all images of a dataset as two arrays.

A list takes a hundred bytes or more for each image, and again in every data worker: each look at an object counts a
reference in its page of memory, which a forked process then copies.
"""

import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

ERRORS = "surrogatepass"  # any str of Python comes back as it was, undecodable names of files too


class Strings(Sequence):
    """Immutable. Equal to any sequence of the same strings; a slice is a list."""

    def __init__(self, values: Iterable[str | os.PathLike | None]):
        encoded = [b"" if value is None else os.fspath(value).encode(errors=ERRORS) for value in values]
        self.data = np.frombuffer(b"".join(encoded), np.uint8)
        self.starts = np.cumsum([0, *map(len, encoded)])

    @classmethod
    def from_arrays(cls, data: np.ndarray, starts: np.ndarray) -> "Strings":
        """`data`: the bytes of all strings, uint8; `starts`: where each begins, and the end of the last."""
        strings = cls.__new__(cls)
        strings.data, strings.starts = data, starts
        return strings

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[operator.index(index)]  # raises IndexError
        return self.decode(self.data[self.starts[place] : self.starts[place + 1]].tobytes())

    def decode(self, value: bytes) -> str:
        return value.decode(errors=ERRORS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self[:3]!r}{', ...' if len(self) > 3 else ''}, {len(self)} in all)"


class Paths(Strings):
    """The same for paths. None stays None."""

    def decode(self, value: bytes) -> Path | None:
        return Path(super().decode(value)) if value else None


class Packed:
    """An attribute of a class: what an object sets it to, such as a list, is stored as Strings or Paths."""

    def __init__(self, kind: type[Strings]):
        self.kind = kind

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> Sequence:
        if instance is None:
            return self
        if self.name not in vars(instance):
            raise AttributeError(f"{owner.__name__} has not set `{self.name}`")
        return vars(instance)[self.name]

    def __set__(self, instance: object, values: Iterable) -> None:
        vars(instance)[self.name] = values if isinstance(values, self.kind) else self.kind(values)
