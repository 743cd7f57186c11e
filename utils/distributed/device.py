"""Select and configure the device to compute on."""

import os

import torch

from utils.constants import DEVICES, PRECISIONS
from utils.distributed import local_rank
from utils.errors import UserError

AMP_TYPES = {name: kind and getattr(torch, kind) for name, kind in PRECISIONS.items()}


def select_device(name: str) -> torch.device:
    """The device `name` of DEVICES; auto is CUDA, else MPS, else the CPU. With CUDA each local rank has its own GPU.

    Raises UserError for an unknown name, a device that is not available, and more local ranks than GPUs.
    """
    if name not in DEVICES:
        raise UserError(f"device {name!r} is unknown: give one of {', '.join(DEVICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, is_available in available.items() if is_available)
    if not available[name]:
        raise UserError(f"`device` {name}: this machine or this PyTorch has none: give `device` auto or cpu")
    if name == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"local rank {local_rank()} has no GPU of its own, this machine has {torch.cuda.device_count()}: "
                "start as many processes with torchrun --nproc-per-node, or give `device` cpu"
            )
        torch.cuda.set_device(local_rank())
        return torch.device("cuda", local_rank())
    return torch.device(name)


def resolve_amp(name: str, device: torch.device) -> str:
    """`name` of AMP_TYPES; auto is bf16 on a CUDA GPU that computes in it, else off. Raises UserError for others."""
    if name not in ("auto", *AMP_TYPES):
        raise UserError(f"`amp` {name!r} is unknown: give auto, {', '.join(AMP_TYPES)}")
    if name != "auto":
        return name
    is_native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if is_native else "off"


def autocast(amp: str, device: torch.device) -> torch.autocast:
    """Mixed precision by the name in AMP_TYPES."""
    return torch.autocast(device.type, AMP_TYPES[amp], enabled=amp != "off")


def describe_device(device: torch.device, amp: str) -> str:
    """The device, its model, and in which precision it computes."""
    if device.type != "cuda":
        return f"{device}, amp {amp}"
    tf32 = (
        "TF32" if torch.backends.cudnn.allow_tf32 and torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    )
    return f"{device} ({torch.cuda.get_device_name(device)}), amp {amp}, float32 convolutions in {tf32}"


def tune_convolutions(is_on: bool) -> None:
    """Let cuDNN time its algorithms once per input shape: faster for crops, slower if every image has its own shape."""
    torch.backends.cudnn.benchmark = is_on and not torch.are_deterministic_algorithms_enabled()


def make_deterministic() -> None:
    """Use only algorithms that give the same bits each time; slower on GPUs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(True)
