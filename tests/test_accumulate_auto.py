"""--accumulate auto finds the fewest micro-batches that fit, changes nothing else, and a resumed run keeps them."""

import json
from types import SimpleNamespace

import pytest
import torch
from running import error_line, in_process
from torch import nn

from benchmarks.kill_resume import differences
from utils.errors import UserError
from utils.micro_batches import MARGIN, fewest_micro_batches, local_batch_norm, possible_counts
from utils.run.checkpoint import read_checkpoint


class Device:
    """A step on a device whose memory holds `most` images; a larger micro-batch raises `error`."""

    def __init__(self, most: int, error: Exception | None = None):
        self.network, self.device = nn.BatchNorm2d(3), torch.device("meta")
        self.most, self.error, self.tried = most, error or torch.OutOfMemoryError("CUDA out of memory"), []
        self.optimizer = SimpleNamespace(zero_grad=lambda: None)

    def backward(self, micro_batches: list[dict], pixels: int) -> None:
        images = micro_batches[0]["image"]
        self.tried.append(len(images))
        self.network(images.float())
        torch.rand(1)
        if len(images) > self.most:
            raise self.error


@pytest.fixture
def freed(monkeypatch) -> list:
    """What was called to give memory back."""
    calls = []
    module = SimpleNamespace(empty_cache=lambda: calls.append("empty_cache"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    return calls


def find(step: object, counts: list[int]) -> int:
    return fewest_micro_batches(step, counts, batch_size=12, crop_size=(5, 7), num_classes=3, reserve=0)


@pytest.mark.parametrize(("most", "count"), [(99, 1), (12, 1), (11, 2), (4, 3), (2, 6)])
def test_the_first_division_that_fits_is_taken(freed, most, count, capsys):
    step = Device(most)
    before = {name: value.clone() for name, value in step.network.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert find(step, [1, 2, 3, 4, 6]) == count
    assert f"memory for {12 // count} images at once: --accumulate {count}" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), state) and step.tried[0] == 12
    assert len(freed) == len(set(step.tried))
    for name, value in step.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_device_that_holds_no_part_is_an_error(freed):
    with pytest.raises(UserError, match="does not hold 2 images of a step: lower `crop_size`"):
        find(Device(1), [1, 2, 3, 4, 6])


def test_another_error_is_not_taken_for_a_full_memory(freed):
    with pytest.raises(RuntimeError, match="illegal memory access"):
        find(Device(3, RuntimeError("CUDA error: an illegal memory access was encountered")), [1, 2])


FULL = ["MPS backend out of memory", "DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"]


@pytest.mark.parametrize("text", FULL)
def test_the_words_for_a_full_memory(freed, text):
    assert find(Device(4, RuntimeError(text)), [1, 2, 3]) == 3


def test_possible_counts():
    assert possible_counts(12, fewest=1, smallest=2) == [1, 2, 3, 4, 6]
    assert possible_counts(12, fewest=2, smallest=1) == [2, 3, 4, 6, 12]
    assert possible_counts(1, fewest=1, smallest=2) == [1]  # refused elsewhere, with a reason


def test_synchronized_batch_norm_normalizes_alone():
    layer, images = nn.SyncBatchNorm(3), torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(images[:1, :, :1, :1])
    with local_batch_norm(nn.Sequential(layer)):
        torch.testing.assert_close(layer(images), nn.BatchNorm2d(3)(images))
        layer(images[:1, :, :1, :1])
    assert "forward" not in vars(layer)


@pytest.fixture
def machine(monkeypatch):
    """The CPU has so much memory that two images fit, of the four of a step: by the peak that the trial reports."""
    peaks = iter([0, 2 * 2**30] * 9)
    monkeypatch.setattr("utils.micro_batches.resident", lambda row: next(peaks))
    monkeypatch.setattr("utils.micro_batches.reset_peak", lambda: None)
    monkeypatch.setattr("utils.micro_batches.available_memory", lambda: 3 * 2**30 + MARGIN)


def test_a_run_is_that_with_the_number_it_found(machine, folder_root, tmp_path, capsys):
    flags = ["--batch-size", "4", "--epochs", "2", "--no-val"]
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    _, given = in_process(data, tmp_path / "given", *flags, "--accumulate", "2")
    _, found = in_process(data, tmp_path / "found", *flags, "--accumulate", "auto", "--max-steps", "1")
    assert "memory for 2 images at once: --accumulate 2" in capsys.readouterr().out
    assert json.loads((found / "config.json").read_text())["accumulate"] == 2
    assert in_process(data, tmp_path / "found", *flags, "--resume", "auto", "--accumulate", "auto")[0] == 0
    assert "images at once" not in capsys.readouterr().out
    one, two = (read_checkpoint(folder / "checkpoint.pth.tar") for folder in (given, found))
    assert one["step"] == two["step"] == 2 and one["config"]["accumulate"] == two["config"]["accumulate"] == 2
    for key in ("state_dict", "optimizer"):
        assert differences(one[key], two[key]) == []


def test_too_little_memory_is_one_line(machine, folder_root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("utils.micro_batches.available_memory", lambda: MARGIN)
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    assert in_process(data, tmp_path / "run", "--batch-size", "4", "--accumulate", "auto")[0] == 2
    assert "the memory of cpu does not hold 2 images of a step: lower --crop-size" in error_line(
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_the_memory_of_a_small_step_is_measured(folder_root, tmp_path, capsys):
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    assert (
        in_process(data, tmp_path / "run", "--batch-size", "4", "--accumulate", "auto", "--max-steps", "1", "--no-val")[
            0
        ]
        == 0
    )
    assert "memory for 4 images at once: --accumulate 1" in capsys.readouterr().out
