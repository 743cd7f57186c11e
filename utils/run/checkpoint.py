"""Checkpoint files: tensors and plain values only, read without executing anything, complete or absent on disk."""

import math
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import nn

from utils.errors import RunFailed, UserError
from utils.run.digests import KEY, check_digests, check_plain_values, digests
from utils.run.files import write_atomically
from utils.run.weights_file import read_safetensors, write_safetensors

# Allowed besides tensors and plain values: the released files of jfzhang95 hold NumPy scalars
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


def is_switch(value: object) -> bool:
    return isinstance(value, bool)


def is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(is_text, value))


def is_channel(value: object) -> bool:
    return is_count(value) and value <= 255


def is_epsilon(value: object) -> bool:
    return is_mapping(value) and set(value) <= {"backbone", "aspp", "decoder"} and all(map(is_number, value.values()))


def is_text(value: object) -> bool:
    return isinstance(value, str)


def list_of(is_valid: Callable[[object], bool], length: int | None = None) -> Callable[[object], bool]:
    def is_list(value: object) -> bool:
        return isinstance(value, list | tuple) and length in (None, len(value)) and all(map(is_valid, value))

    return is_list


# How to check the entries of a checkpoint of this project; each entry may be absent
ENTRIES = {
    "state_dict": is_mapping,
    "ema_state_dict": is_mapping,
    "auxiliary_state_dict": is_mapping,
    "optimizer": is_mapping,
    "scaler": is_mapping,
    "epoch": is_count,
    "step": is_count,
    "counted_step": is_count,
    "best_pred": is_number,
    "broken": is_mapping,
    "epoch_losses": is_number,
    "epoch_seconds": is_number,
    "classes": list_of(is_text),
    "palette": list_of(list_of(is_channel, 3)),
    "mean": list_of(is_number, 3),
    "std": list_of(is_number, 3),
    "epsilon": is_epsilon,
    "padding": lambda value: value in ("symmetric", "same"),
    "untrained": list_of(is_text),
    "scores": is_mapping,
}
# The same for the entries of its `config` that load a network
CONFIG_ENTRIES = {
    "backbone": is_text,
    "head": is_text,
    "out_stride": lambda value: value is None or is_count(value),
    "multi_grid": is_switch,
    "width": lambda value: is_number(value) and 0 < value < math.inf,
    "wide_tap": is_switch,
    "dropout": lambda value: is_number(value) and 0 <= value < 1,
    "crop_size": list_of(is_count, 2),
    "dataset": is_text,
}


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint or of a file of weights, also .safetensors, on the CPU; none of it is executed.

    Raises UserError if the file is missing, damaged, not a dict, or holds more than tensors and plain values. The
    tensors are compared with their SHA-256, which files of older versions and of others do not hold.
    """
    path = Path(path)
    if not path.is_file():
        reason = "it is a folder, not a file" if path.is_dir() else "it is not there"
        raise UserError(f"no file {path} ({reason}): give the path of a checkpoint or of weights")
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint: give another file")
    if KEY in content:
        check_plain_values(path)
        check_digests(content, content.pop(KEY), path)
    if is_ours(content):
        check_entries(content, path)
    return content


def read_pickle(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign formats: the error below reports them in one line
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises EOF, pickle, zip, key and runtime errors, among others
        raise UserError(f"{path} cannot be read as a checkpoint ({explain(error, path)}): give another file") from error


def explain(error: Exception, path: Path) -> str:
    """Why `torch.load` failed, in a few words: its own messages are long, and some advise `weights_only=False`."""
    if path.stat().st_size == 0:
        return "it is empty"
    if is_torchscript(path):
        return "it is a TorchScript program, not weights; none of its code was run"
    message, *forbidden = str(error).split("GLOBAL ")
    if "Weights only load failed" in message and forbidden:
        return f"it holds {forbidden[0].split()[0]}, not only tensors and plain values; none of its code was run"
    if isinstance(error, RuntimeError) and "Weights only" not in message:  # a damaged zip: torch names the place
        return message.strip().splitlines()[0]
    return "it is not a PyTorch file, or holds more than tensors and plain values"


def is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def is_ours(content: dict) -> bool:
    """Whether `content` is a checkpoint of this project: the files of others have no such `config`."""
    return isinstance(content.get("config"), dict) and "backbone" in content["config"]


def check_entries(content: dict, path: Path) -> None:
    """Raise UserError for an entry of the wrong type or value."""
    for entries, table in ((content, ENTRIES), (content["config"], CONFIG_ENTRIES)):
        for name, is_valid in table.items():
            if name in entries and not is_valid(entries[name]):
                what = f"its {name} is {str(entries[name])[:40]!r}"
                raise UserError(f"{path} is damaged, {what}: give another checkpoint")
    num_classes, num_colors = (len(content.get(name, ())) for name in ("classes", "palette"))
    if num_colors not in (0, num_classes):
        raise UserError(
            f"{path} is damaged, it has {num_classes} classes and {num_colors} colors: give another checkpoint"
        )


def write_checkpoint(path: Path, content: dict) -> None:
    """Write `content` to `path`; the old file stays until the new one is complete on disk. Raises OSError.

    A file named .safetensors gets the weights and their description alone.
    """
    if path.suffix == ".safetensors":
        write_atomically(path, lambda file: write_safetensors(content, file))
    else:
        write_atomically(path, lambda file: write_pickle(content | {KEY: digests(content)}, file))


def write_pickle(content: dict, file: BinaryIO) -> None:
    """`content` in the format of torch.save. Other threads run meanwhile. Raises OSError."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # by torch, while that of `file` is on its way
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def require_finite(model: nn.Module, step: int) -> None:
    """Raise RunFailed if a weight is not finite: such weights must not replace those of a checkpoint."""
    if not nn.utils.get_total_norm(model.parameters(), math.inf).isfinite():
        raise RunFailed(
            f"the weights are not finite after step {step}: the last checkpoint is kept; resume it with a lower "
            "learning rate"
        )
