"""Read TensorFlow checkpoints without TensorFlow.

A checkpoint is `<prefix>.index`, a LevelDB table of BundleEntryProto by variable name, and `<prefix>.data-*`, the raw
tensors (tensorflow/core/util/tensor_bundle). The reader on PyPI cannot be imported with a current protobuf.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError

MAGIC = 0xDB4775248B80FB57  # the last 8 bytes of a LevelDB table
FOOTER = 48  # bytes
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}  # DataType in TensorFlow's types.proto -> NumPy


def find_prefix(path: Path) -> Path | None:
    """The prefix of the checkpoint at `path`: a prefix, one of its files, or a folder. None if there is none.

    In a folder with several, it is the one that TensorFlow's file `checkpoint` names, else the newest.
    """
    if not path.is_dir():
        prefixes = (path, path.with_suffix(""))
        return next((prefix for prefix in prefixes if Path(f"{prefix}.index").is_file()), None)
    latest = path / "checkpoint"
    if latest.is_file():
        words = latest.read_text(errors="replace").split('"')
        if len(words) > 1 and (path / f"{Path(words[1]).name}.index").is_file():
            return path / Path(words[1]).name
    found = sorted(path.glob("*.index"), key=lambda file: file.stat().st_mtime_ns)
    return found[-1].with_suffix("") if found else None


def read_tf_checkpoint(prefix: Path) -> dict[str, np.ndarray]:
    """Every numeric variable by name, optimizer slots included. Raises UserError for a damaged or incomplete one."""
    index = Path(f"{prefix}.index")
    try:
        entries = {key: parse_message(value) for key, value in read_table(index.read_bytes())}
        num_shards = entries.pop("")[1][0]
        names = [f"{prefix}.data-{shard:05d}-of-{num_shards:05d}" for shard in range(num_shards)]
        shards = [np.memmap(name, np.uint8, "r") for name in names]
        return {key: read_tensor(entry, shards) for key, entry in entries.items() if entry.get(1, [0])[0] in DTYPES}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing: put it beside {index}") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise UserError(f"{index} cannot be read as a TensorFlow checkpoint ({error}): give another file") from error


def read_tensor(entry: dict[int, list], shards: list[np.memmap]) -> np.ndarray:
    """The tensor of a BundleEntryProto, whose fields are 1 dtype, 2 shape, 3 shard, 4 offset, 5 size in bytes."""
    dims = parse_message(entry[2][0]).get(2, []) if 2 in entry else []
    shape = [parse_message(dim).get(1, [0])[0] for dim in dims]
    dtype = np.dtype(DTYPES[entry[1][0]])
    shard, offset, size = (entry.get(number, [0])[0] for number in (3, 4, 5))
    data = shards[shard][offset : offset + size]
    if len(data) != size or size != dtype.itemsize * int(np.prod(shape)):
        raise ValueError("its data file is too short")
    return data.view(dtype).reshape(shape).copy()


def read_table(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(key, value) pairs of a LevelDB table: the footer points to the index block, that one to the data blocks."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("it holds no LevelDB table")
    position = len(data) - FOOTER
    for _ in ("offset", "size"):  # of the metaindex block, which is not used
        _, position = read_varint(data, position)
    for _, handle in read_block(data, data[position:]):
        for key, value in read_block(data, handle):
            yield key.decode(), value


def read_block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs of the block at the offset and of the size in `handle`.

    A key is stored as the number of bytes that it shares with the key before it, and the bytes that follow.
    """
    offset, position = read_varint(handle, 0)
    size, _ = read_varint(handle, position)
    if data[offset + size] != 0:
        raise ValueError("its table is compressed")
    block = data[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]  # of the pairs; restart points follow
    key, position = b"", 0
    while position < end:
        num_shared, position = read_varint(block, position)
        num_added, position = read_varint(block, position)
        length, position = read_varint(block, position)
        key = key[:num_shared] + block[position : position + num_added]
        position += num_added
        yield key, block[position : position + length]
        position += length


def parse_message(data: bytes) -> dict[int, list]:
    """The fields of a protocol buffer, number -> values: int for varints, bytes for other types."""
    fields: dict[int, list] = {}
    position = 0
    while position < len(data):
        tag, position = read_varint(data, position)
        wire_type = tag & 7
        if wire_type == 0:
            value, position = read_varint(data, position)
        else:
            length, position = read_varint(data, position) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], position)
            value, position = data[position : position + length], position + length
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(number, position after it). Seven bits a byte, lowest first; the high bit says that another byte follows."""
    number = shift = 0
    while data[position] & 0x80:
        number |= (data[position] & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return number | data[position] << shift, position + 1
