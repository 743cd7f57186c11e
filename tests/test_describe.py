"""The first lines of a run: the device, and notes on flags that do not go well together."""

import argparse

import pytest
import torch

from config.describe import notes
from dataloaders import ResumableBatchSampler
from utils.distributed.device import describe_device, resolve_amp
from utils.errors import UserError

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


def notes_on(device: torch.device = CUDA, *, batch_size: int = 64, processes: int = 8, **flags: object) -> str:
    args = {"crop_size": [513, 513], "out_stride": 16, "compile": False, "sync_bn": None, "freeze_bn": False} | flags
    sampler = ResumableBatchSampler(1000, batch_size, seed=1, world_size=processes)
    return "\n".join(notes(argparse.Namespace(**args), sampler, device))


def test_a_good_choice_needs_no_note():
    assert (
        notes_on() == notes_on(processes=1, batch_size=2, compile=True) == notes_on(compile=True, sync_bn=False) == ""
    )
    assert notes_on(compile=True, freeze_bn=True) == notes_on(CPU, batch_size=8, compile=True) == ""


def test_a_crop_out_of_the_grid_names_the_nearest():
    assert "crop side 500 is not k*16+1" in (text := notes_on(crop_size=[500, 513])) and "nearest is 497" in text


@pytest.mark.parametrize(("batch_size", "images"), [(8, 1), (16, 2)])
def test_gpus_with_one_or_two_images_are_said(batch_size, images):
    assert f"each GPU computes {images} images at once" in notes_on(batch_size=batch_size)
    assert notes_on(batch_size=24) == ""


@pytest.mark.parametrize("sync_bn", [None, True])
def test_compile_with_synchronized_batch_norm_is_said(sync_bn):
    assert "--no-sync-bn or --freeze-bn" in notes_on(compile=True, sync_bn=sync_bn)


@pytest.mark.parametrize(("is_native", "amp"), [(True, "bf16"), (False, "off")])
def test_auto_is_bf16_on_a_gpu_that_computes_in_it(is_native, amp, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: is_native)
    assert resolve_amp("auto", CUDA) == amp
    assert resolve_amp("auto", CPU) == resolve_amp("auto", torch.device("mps")) == "off"
    assert resolve_amp("fp16", CUDA) == "fp16" and resolve_amp("off", CUDA) == "off"
    with pytest.raises(UserError, match="`amp` 'half' is unknown: give auto, off, bf16, fp16"):
        resolve_amp("half", CPU)


@pytest.mark.parametrize(("capability", "precision"), [((9, 0), "TF32"), ((7, 5), "float32")])
def test_the_precision_of_convolutions_is_said(capability, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert describe_device(CUDA, "bf16") == f"cuda:0 (A GPU), amp bf16, float32 convolutions in {precision}"
    assert describe_device(CPU, "off") == "cpu, amp off"
