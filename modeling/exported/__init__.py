"""A trained network as a file that runs without this repository: ONNX, or a program of torch.export."""

from pathlib import Path

from utils.errors import UserError

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}  # value of --format -> ending of the file
OUTPUTS = ("logits", "labels")


def check_name(out: Path, format: str) -> None:
    """Raise UserError for a file whose ending is not that of its `format`."""
    if out.suffix != FORMATS[format]:
        raise UserError(f"`out` {out}: the name of this `format` ends in {FORMATS[format]}")
