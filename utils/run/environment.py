"""The software versions, the commit and the machine of a run."""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy
import PIL
import torch

from utils.distributed import world_size


def describe_environment() -> dict:
    """`versions` {name: str} and `commit` (str; None outside a git checkout), for the configuration of a run."""
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),  # a TorchVersion, which loading with `weights_only` refuses
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
        "commit": git_commit(),
    }


def describe_machine() -> dict:
    """Processor, GPUs (if this process uses CUDA), system and number of processes: plain values for people to read."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "processor": f"{processor_name()}, {os.cpu_count()} cores",
        "GPUs": ", ".join(gpus) if torch.cuda.is_initialized() else "none used",
        "system": f"{platform.system()} {platform.release()}",
        "processes": world_size(),
    }


def processor_name() -> str:
    """Linux gives it in /proc alone; `platform` knows it elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def command_line(script: str, arguments: Sequence[str]) -> str:
    """The command that started this process: through torchrun if its variables are set."""
    launcher, processes = ["python"], os.environ.get("LOCAL_WORLD_SIZE")
    if processes:
        num_nodes = int(os.environ.get("WORLD_SIZE", processes)) // int(processes)
        nodes = ["--nnodes", str(num_nodes)] if num_nodes > 1 else []
        launcher = ["torchrun", *nodes, "--nproc-per-node", processes]
    return shlex.join([*launcher, script, *arguments])


def project_version() -> str:
    """The version in pyproject.toml."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    return re.search(r'^version = "(.*)"$', text, re.M)[1]  # tomllib needs Python 3.11


def git_commit() -> str | None:
    """The commit of this checkout, with `-dirty` appended if tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
