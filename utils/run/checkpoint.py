"""Checkpoint files: tensors and plain values only, read without executing anything, written whole or not at all."""

import io
import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.errors import RunFailed, UserError
from utils.run.files import write_atomically

# Released files of jfzhang95 hold NumPy scalars: these names, and no others, are let through
NUMPY_SCALARS = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (bool, np.int32, np.int64, np.float32, np.float64)),
]


def is_number(value: object) -> bool:
    return isinstance(value, int | float)


def is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def list_of(is_good: Callable[[object], bool], length: int | None = None) -> Callable[[object], bool]:
    def is_list(value: object) -> bool:
        return isinstance(value, list | tuple) and length in (None, len(value)) and all(map(is_good, value))

    return is_list


# What these entries are in a checkpoint of ours
ENTRIES = {
    "state_dict": is_mapping,
    "ema_state_dict": is_mapping,
    "optimizer": is_mapping,
    "scaler": is_mapping,
    "epoch": is_count,
    "step": is_count,
    "counted_step": is_count,
    "best_pred": is_number,
    "broken": is_mapping,
    "epoch_losses": is_number,
    "epoch_seconds": is_number,
    "classes": list_of(lambda value: isinstance(value, str)),
    "palette": list_of(list_of(is_count, 3)),
    "mean": list_of(is_number, 3),
    "std": list_of(is_number, 3),
    "epsilon": is_mapping,
    "padding": lambda value: value in ("symmetric", "same"),
    "untrained": list_of(lambda value: isinstance(value, str)),
}


def read_checkpoint(path: str | Path) -> dict:
    """What the file holds, on the CPU. Raises UserError for a missing, broken or foreign one."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "is not there"
        raise UserError(f"no file {path} (it {what}): give the path of a checkpoint or of weights")
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign formats: the error below says it in one line
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met: EOF, pickle, zip, key, runtime errors
        raise UserError(f"{path} cannot be read as a checkpoint ({explain(error, path)}): give another file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint: give another file")
    if is_ours(content):
        check_entries(content, path)
    return content


def explain(error: Exception, path: Path) -> str:
    if path.stat().st_size == 0:
        return "it is empty"
    if zipfile.is_zipfile(path) and any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
        return "it is a TorchScript program, not weights; nothing of it was run"
    words = str(error).split("GLOBAL ")
    if "Weights only load failed" in words[0] and len(words) > 1:
        return f"it holds {words[1].split()[0]}, not only tensors and plain values; nothing of it was run"
    if isinstance(error, RuntimeError) and "Weights only" not in words[0]:  # a damaged zip: torch says where
        return words[0].strip().splitlines()[0]
    return "it is no PyTorch file, or holds more than tensors and plain values"


def is_ours(content: dict) -> bool:
    return isinstance(content.get("config"), dict) and "backbone" in content["config"]


def check_entries(content: dict, path: Path) -> None:
    """Raise UserError where an entry of a checkpoint of ours is not what it must be."""
    for name, is_good in ENTRIES.items():
        if name in content and not is_good(content[name]):
            raise UserError(f"{path} is damaged, its {name} is {str(content[name])[:40]!r}: give another checkpoint")


def write_checkpoint(path: Path, content: dict) -> None:
    """Put `content` at `path`, where the old file stays until the new one is whole on the disk."""
    write_atomically(path, to_bytes(content))


def to_bytes(content: dict) -> memoryview:
    """The content of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def require_finite(model: nn.Module, step: int) -> None:
    """Raise RunFailed for weights that are not finite: they must not replace those of a checkpoint."""
    largest = torch._foreach_norm(list(model.parameters()), ord=math.inf)  # one kernel for all; no public form
    if not torch.stack(largest).isfinite().all():
        raise RunFailed(
            f"the weights are not finite after step {step}: the last checkpoint is kept; resume it with a lower "
            "learning rate"
        )
