"""What a run was made with."""

import platform
import subprocess
from pathlib import Path

import numpy
import PIL
import torch
import torchvision


def describe_environment() -> dict:
    """`versions` and `commit` (None outside a git checkout), plain values."""
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a plain string: checkpoints hold nothing else
            "torchvision": torchvision.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of this checkout, with `-dirty` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
