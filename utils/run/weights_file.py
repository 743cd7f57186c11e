"""Weights without a run, as safetensors: half the size of a checkpoint, described by the metadata of the file.

`model_best.safetensors` of a run, and `model.safetensors` of `modeling.publish`, with `config.json` beside it.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from utils.errors import UserError
from utils.run.digests import KEY, check_digests, digests, memory_of

FORMAT, VERSION = "deeplabv3plus", 1
# The format's names of what a network may hold
TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"
# The entries of a checkpoint that describe its weights, and how they came about
KEYS = (
    "config", "classes", "palette", "mean", "std", "epsilon", "padding", "epoch", "step", "best_pred",
    "protocol", "scores", "untrained",
)  # fmt: skip


def describe(content: Mapping) -> dict:
    """What the weights in the checkpoint `content` need to be used: plain values, as `config.json` holds them."""
    return {"format": FORMAT, "format_version": VERSION} | {key: content[key] for key in KEYS if key in content}


def to_safetensors(content: Mapping) -> bytes:
    """The bytes that `write_safetensors` writes."""
    file = io.BytesIO()
    write_safetensors(content, file)
    return file.getvalue()


def write_safetensors(content: Mapping, file: BinaryIO) -> None:
    """Write the weights that validation used, averaged ones where there are some, as a file that describes itself.

    `content`: that of a checkpoint, with the entries of `describe`. The library of the format copies all tensors twice
    and stops other threads meanwhile; this writes one after the other, in the library's order. Raises OSError.
    """
    state = content.get("ema_state_dict", content["state_dict"])
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {FORMAT: json.dumps(describe(content)), KEY: json.dumps(digests(tensors))}
    header, start = {"__metadata__": metadata}, 0
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in names:
        value, end = tensors[name], start + tensors[name].nbytes
        header[name] = {"dtype": TYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the data is aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for name in names:
        file.write(memory_of(tensors[name]))


def read_safetensors(path: Path) -> dict:
    """The content of a file as of a checkpoint: `state_dict`, and the description if there is one.

    The description is in the metadata, else in `config.json` beside the file. Raises UserError if the file is damaged,
    or if the two differ.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, file.keys()
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        reason = "it is empty" if path.stat().st_size == 0 else str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as safetensors ({reason}): give another file") from error
    if KEY in metadata:
        check_digests(state, read_digests(metadata[KEY], path), path)
    return {"state_dict": state} | find_description(path, metadata)


def read_digests(text: str, path: Path) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged, its {KEY} is no JSON ({error}): give another file") from error


def find_description(path: Path, metadata: Mapping) -> dict:
    """The description in `metadata`, else beside `path`; empty for files of others."""
    beside = path.with_name(DESCRIPTION)
    is_published = path.name == WEIGHTS and beside.is_file()  # other files may lie beside the config.json of a run
    if FORMAT not in metadata:
        content = read_json(beside) if is_published else None
        is_ours = isinstance(content, dict) and content.get("format") == FORMAT
        return check_description(content, beside) if is_ours else {}
    try:
        description = json.loads(metadata[FORMAT])
    except ValueError as error:
        raise UserError(f"{path} is damaged, its description is no JSON ({error}): give another file") from error
    if is_published and read_json(beside) != description:
        raise UserError(
            f"{beside} is not the description that {path.name} holds: remove it, or give the folder that "
            "modeling.publish wrote"
        )
    return check_description(description, path)


def read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}): give the file that modeling.publish wrote"
        ) from error


def check_description(description: object, path: Path) -> dict:
    """`description`, if this version reads its format; `utils.run.checkpoint.check_entries` checks the entries."""
    version = description.get("format_version") if isinstance(description, dict) else None
    if not isinstance(version, int) or not isinstance(description.get("config"), dict):
        raise UserError(f"{path} is damaged, its description names no format_version or config: give another file")
    if version > VERSION:
        raise UserError(f"{path} has format {version}, this version reads {VERSION}: update the repository")
    if "backbone" not in description["config"]:
        raise UserError(f"{path} is damaged, its config names no backbone: give another file")
    return {key: description[key] for key in KEYS if key in description}
