"""The SHA-256 of each tensor in a checkpoint: reading notices damage and names the tensor."""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError

KEY = "sha256"  # the entry of a checkpoint, or of the metadata of a safetensors file: {name: hexadecimal digest}
FIX = "give another checkpoint"


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU in the order of its memory, without a copy if it is dense."""
    tensor = tensor.detach()
    if not (tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))):
        tensor = tensor.contiguous()
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return memoryview(flat.view(torch.uint8).numpy())


def named_tensors(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each tensor in `value`: `state_dict/aspp.weight`, or `optimizer/state/0/momentum_buffer`."""
    if isinstance(value, Tensor):
        yield name, value
        return
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        yield from named_tensors(item, f"{name}/{key}" if name else str(key))


def digest(tensor: Tensor) -> str:
    """Lets other threads run while it computes."""
    return hashlib.sha256(memory_of(tensor)).hexdigest()


def digests(content: Mapping) -> dict[str, str]:
    """{name: SHA-256} of all tensors in `content`, one after the other, as training may need the other cores."""
    return {name: digest(tensor) for name, tensor in named_tensors(content)}


def check_digests(content: Mapping, stored: object, path: Path) -> None:
    """Raise UserError, with the name of the tensor, unless `stored` holds the digests of all tensors in `content`."""
    tensors = dict(named_tensors(content))
    if not isinstance(stored, Mapping) or stored.keys() != tensors.keys():
        missing = sorted(map(str, tensors.keys() ^ stored.keys())) if isinstance(stored, Mapping) else [KEY]
        raise UserError(f"{path} is damaged, tensors and SHA-256 do not match at {missing[0]}: {FIX}")
    damaged = [name for name, found in all_digests(tensors.items()) if found != stored[name]]
    if damaged:
        more = f" and {len(damaged) - 1} more" if damaged[1:] else ""
        raise UserError(f"{path} is damaged, the tensor {damaged[0]}{more} differs from its SHA-256: {FIX}")


def all_digests(tensors: Iterable[tuple[str, Tensor]]) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda pair: (pair[0], digest(pair[1])), tensors))


def check_plain_values(path: Path) -> None:
    """Raise UserError if the part of a checkpoint that is no tensor is damaged: torch.load checks no CRC."""
    if not zipfile.is_zipfile(path):  # written by old versions of PyTorch
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith("/data.pkl"):
                    archive.read(name)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged, its plain values differ from their CRC ({error}): {FIX}") from error
