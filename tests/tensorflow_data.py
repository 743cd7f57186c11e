"""TensorFlow checkpoints for tests: the variables of a network, and an independent writer of the file format."""

import struct
from pathlib import Path

import numpy as np
from torch import nn

from modeling.pretrained.tf_names import tensorflow_name


def tensorflow_variables(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights of `model`, a MobileNet with head lite, under the names and in the layout of TensorFlow."""
    values = model.state_dict()
    left = {name for name in values if not name.endswith("num_batches_tracked")}
    stems = ["MobilenetV2/Conv", "image_pooling", "aspp0", "concat_projection"]
    for block in range(17):
        scope = f"MobilenetV2/expanded_conv{f'_{block}' if block else ''}"
        stems += [f"{scope}/{part}" for part in ("expand", "depthwise", "project")[block == 0 :]]
    leaves = [f"BatchNorm/{leaf}" for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]
    variables = {}
    for stem in stems:
        kernel = "depthwise_weights" if stem.endswith("depthwise") else "weights"
        for leaf in (kernel, *leaves):
            value = values[tensorflow_name(f"{stem}/{leaf}")]
            order = {"depthwise_weights": (2, 3, 0, 1), "weights": (2, 3, 1, 0)}.get(leaf)
            variables[f"{stem}/{leaf}"] = (value.permute(order) if order else value).numpy()
            left.remove(tensorflow_name(f"{stem}/{leaf}"))
    variables["logits/semantic/weights"] = values["decoder.classifier.weight"].permute(2, 3, 1, 0).numpy()
    variables["logits/semantic/biases"] = values["decoder.classifier.bias"].numpy()
    assert left == {"decoder.classifier.weight", "decoder.classifier.bias"}
    return variables


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def table_block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block with shared key prefixes and one restart point."""
    body, last = b"", b""
    for key, value in rows:
        shared = next((n for n, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return body + struct.pack("<II", 0, 1)


def write_tf_checkpoint(prefix: Path, variables: dict[str, np.ndarray], shards: int = 1) -> Path:
    """Write `variables` as a tensor bundle with small index blocks."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data, rows = [b""] * shards, [(b"", field(1, shards))]
    for number, name in enumerate(sorted(variables)):
        value, shard = np.asarray(variables[name]), number % shards
        dims = b"".join(field(2, field(1, side)) for side in value.shape)
        entry = field(1, 9 if value.dtype == np.int64 else 1) + field(2, dims)
        entry += (field(3, shard) if shard else b"") + (field(4, len(data[shard])) if data[shard] else b"")
        rows.append((name.encode(), entry + field(5, value.nbytes)))
        data[shard] += np.ascontiguousarray(value).tobytes()
    for shard, content in enumerate(data):
        Path(f"{prefix}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    out, index = b"", []
    for start in range(0, len(rows), 7):
        block = table_block(rows[start : start + 7])
        index.append((rows[min(start + 6, len(rows) - 1)][0], varint(len(out)) + varint(len(block))))
        out += block + b"\0" + b"crc."
    places = []
    for block in (table_block([]), table_block(index)):
        places.append(varint(len(out)) + varint(len(block)))
        out += block + b"\0" + b"crc."
    footer = b"".join(places)
    Path(f"{prefix}.index").write_bytes(out + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db"))
    return prefix
