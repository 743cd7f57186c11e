"""Checkpoint files: tensors and plain values only, read without executing anything, written whole or not at all."""

import io
from pathlib import Path

import numpy as np
import torch

from errors import UserError
from utils.files import write_atomically

# Released files of the known implementation hold NumPy scalars: these names, and no others, are let through
NUMPY_SCALARS = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]


def read_checkpoint(path: str | Path) -> dict:
    """What the file holds, on the CPU. Raises UserError for a missing, broken or foreign one."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is not there"
        raise UserError(f"no file {path} (it {what}): give the path of a checkpoint or of weights")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met: EOF, pickle, zip, key, runtime errors
        raise UserError(f"{path} cannot be read as a checkpoint ({explain(error)}): give another file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint: give another file")
    return content


def explain(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "Weights only load failed" in lines[0]:
        foreign = next((line.split("GLOBAL ")[1].split()[0] for line in lines if "GLOBAL " in line), None)
        if foreign:
            return f"it holds {foreign}, not only tensors and plain values; nothing of it was run"
        return "it is no PyTorch file, or holds more than tensors and plain values"
    return lines[0]


def write_checkpoint(path: Path, content: dict) -> None:
    """Put `content` at `path`, where the old file stays until the new one is whole on the disk."""
    write_atomically(path, to_bytes(content))


def to_bytes(content: dict) -> memoryview:
    """The content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()
