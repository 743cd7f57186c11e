"""Read TensorFlow checkpoints without TensorFlow.

A checkpoint is `<prefix>.index`, a LevelDB table of BundleEntryProto by variable name, and `<prefix>.data-*`, the raw
tensors (tensorflow/core/util/tensor_bundle). The reader on the package index does not import beside today's protobuf.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError

MAGIC = 0xDB4775248B80FB57
FOOTER = 48
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # of DataType in TensorFlow's types.proto


def find_prefix(path: Path) -> Path | None:
    """The checkpoint that `path` names: a prefix, one of its files, or a folder that holds one. None: there is none."""
    if not path.is_dir():
        prefixes = (path, path.with_suffix(""))
        return next((prefix for prefix in prefixes if Path(f"{prefix}.index").is_file()), None)
    latest = path / "checkpoint"  # TensorFlow's note of the newest one
    if latest.is_file():
        words = latest.read_text(errors="replace").split('"')
        if len(words) > 1 and (path / f"{Path(words[1]).name}.index").is_file():
            return path / Path(words[1]).name
    found = sorted(path.glob("*.index"), key=lambda file: file.stat().st_mtime_ns)
    return found[-1].with_suffix("") if found else None


def read_tf_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """Every numeric variable by name, optimizer slots included. Raises UserError for a broken or incomplete one."""
    index = Path(f"{prefix}.index")
    try:
        entries = {key: parse_message(value) for key, value in read_table(index.read_bytes())}
        num_shards = entries.pop("")[1][0]
        names = [f"{prefix}.data-{shard:05d}-of-{num_shards:05d}" for shard in range(num_shards)]
        shards = [np.memmap(name, np.uint8, "r") for name in names]
        return {key: read_tensor(entry, shards) for key, entry in entries.items() if entry.get(1, [0])[0] in DTYPES}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: a TensorFlow checkpoint needs it beside {index}") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise UserError(f"{index} cannot be read as a TensorFlow checkpoint ({error}): give another file") from error


def read_tensor(entry: dict[int, list], shards: list[np.memmap]) -> np.ndarray:
    """The tensor of a BundleEntryProto: 1 dtype, 2 shape, 3 shard, 4 offset, 5 size in bytes."""
    dims = parse_message(entry[2][0]).get(2, []) if 2 in entry else []
    shape = [parse_message(dim).get(1, [0])[0] for dim in dims]
    dtype, (shard, offset, size) = np.dtype(DTYPES[entry[1][0]]), (entry.get(n, [0])[0] for n in (3, 4, 5))
    data = shards[shard][offset : offset + size]
    if len(data) != size or size != dtype.itemsize * int(np.prod(shape)):
        raise ValueError("its data file is cut short")
    return data.view(dtype).reshape(shape).copy()


def read_table(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, value) of a LevelDB table: a footer points to an index block, that to the data blocks."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("no table in it")
    place = read_varint(data, len(data) - FOOTER)[1]
    place = read_varint(data, place)[1]  # behind the place of the metaindex block
    for _, handle in read_block(data, place):
        for key, value in read_block(handle, 0, of=data):
            yield key.decode(), value


def read_block(handle: bytes, place: int, of: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the block whose offset and size stand at `place` of `handle`. Keys share their beginnings."""
    offset, place = read_varint(handle, place)
    size, _ = read_varint(handle, place)
    data = handle if of is None else of
    if data[offset + size] != 0:
        raise ValueError("its table is compressed")
    block = data[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]  # without the restart points
    key, place = b"", 0
    while place < end:
        shared, place = read_varint(block, place)
        added, place = read_varint(block, place)
        length, place = read_varint(block, place)
        key = key[:shared] + block[place : place + added]
        yield key, block[place + added : place + added + length]
        place += added + length


def parse_message(data: bytes) -> dict[int, list]:
    """The fields of a protocol buffer: number -> values, numbers as int and everything else as bytes."""
    fields: dict[int, list] = {}
    place = 0
    while place < len(data):
        tag, place = read_varint(data, place)
        kind = tag & 7
        if kind == 0:
            value, place = read_varint(data, place)
        else:
            length, place = read_varint(data, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = data[place : place + length], place + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """(number, the place behind it): seven bits a byte, the lowest first."""
    number = shift = 0
    while data[place] & 0x80:
        number |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return number | data[place] << shift, place + 1
