"""Where to compute."""

import os

import torch

from utils.distributed import local_rank
from utils.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def select_device(name: str) -> torch.device:
    """The named device; auto takes CUDA, then MPS, then the CPU. Raises UserError where there is none such."""
    if name not in DEVICES:
        raise UserError(f"device {name!r} is unknown: give one of {', '.join(DEVICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_there in available.items() if is_there)
    if not available[name]:
        raise UserError(f"--device {name}: this machine or this PyTorch has none: give --device auto or cpu")
    if name == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank()} of this machine has no GPU of its own, it has {torch.cuda.device_count()}: "
                "give torchrun --nproc-per-node as many, or --device cpu"
            )
        torch.cuda.set_device(local_rank())
        return torch.device("cuda", local_rank())
    return torch.device(name)


def tune_convolutions(is_on: bool) -> None:
    """Let cuDNN time its algorithms for each new shape: a gain for crops, a loss where every image has its own."""
    torch.backends.cudnn.benchmark = is_on and not torch.are_deterministic_algorithms_enabled()


def make_deterministic() -> None:
    """Only algorithms that give the same bits each time; slower on GPUs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
