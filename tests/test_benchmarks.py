"""The benchmarks run and print their numbers; no test judges the speed."""

import re
import subprocess

import pytest
import torch
from torch import nn

from benchmarks import cache as cache_benchmark
from benchmarks import coco as coco_benchmark
from benchmarks import gpu as gpu_benchmark
from benchmarks import inference as inference_benchmark
from benchmarks import input as input_benchmark
from benchmarks import large_images as large_images_benchmark
from benchmarks import memory as memory_benchmark
from benchmarks import observers as observers_benchmark
from benchmarks import predict as predict_benchmark
from benchmarks import save as save_benchmark
from benchmarks import scoring as scoring_benchmark
from benchmarks import train_step as train_step_benchmark
from benchmarks.cases import Case, eager_cases, ratios
from benchmarks.peers import plain_epoch
from benchmarks.rates import MemoryLoader, random_batch
from benchmarks.report import FIRST, Report


def test_input_benchmark_prints_two_times_and_their_ratio(voc_root, capsys):
    input_benchmark.main(["--data-root", str(voc_root), "--crop-size", "65", "--repeats", "1", "--workers", "0"])
    out = capsys.readouterr().out
    rows = dict(re.findall(r"^(\S.*?)  +(\d+\.\d+)$", out, re.MULTILINE))
    names = ["Pillow decodes image and label", "decoding for a sample", "training sample, crop 65"]
    assert list(rows) == [*names, "loader with 0 workers"]
    alone, whole = float(rows[names[0]]), float(rows[names[2]])
    ratio = float(re.search(r"^ratio (.*)$", out, re.MULTILINE)[1])
    assert alone > 0 and abs(ratio - whole / alone) < 0.5 * ratio


def test_cache_benchmark_prints_a_row_for_each_way_to_get_a_sample(voc_root, capsys):
    cache_benchmark.main(["--data-root", str(voc_root), "--crop-size", "65", "--repeats", "1"])
    rows = re.findall(r"^(.+?)  +(\d+\.\d+) +(\d+\.\d+) +(\d+\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    ways = [f"training sample, {name}" for name in ("no cache", "--cache DIR", "--cache ram")]
    assert [name for name, *_ in rows] == ["Pillow decodes image and label", *ways]
    assert all(abs(float(then) / float(rows[0][2]) - float(ratio)) < 0.1 for _, _, then, ratio in rows)


@pytest.mark.slow
def test_save_benchmark_prints_a_row_for_each_way_to_save(tmp_path, capsys):
    flags = ["--backbone", "mobilenet", "--size", "33", "--steps", "1", "--rounds", "1", "--dir", str(tmp_path)]
    save_benchmark.main(flags)
    rows = re.findall(r"^\| (\w.+?), (.+?) \| (\d+) \| (\d\.\d+) \|", capsys.readouterr().out, re.MULTILINE)
    kinds = ("latest", "best and latest")
    assert [row[:2] for row in rows] == [(kind, how) for kind in kinds for how in ("at once", "by a thread")]
    assert [ratio for _, how, _, ratio in rows if how == "at once"] == ["1.000"] * 2
    assert not list(tmp_path.iterdir())


def test_inference_benchmark_prints_a_row_a_scale_and_the_ratio(capsys):
    inference_benchmark.main(
        ["--backbone", "mobilenet", "--head", "lite", "--size", "65", "97", "--scales", "0.5", "1"]
    )
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith(("0.5 ", "1.0 "))]
    assert len(rows) == 3 and all(float(row[-1]) > 0.05 for row in rows)
    assert re.search(r"^ratio \d+\.\d of all to scale 1\.0 alone$", out, re.MULTILINE)


def test_observers_benchmark_prints_a_row_a_count(capsys):
    """It also compares the counts with those of the definitions."""
    observers_benchmark.main(["--size", "60", "90", "--classes", "5", "--images", "2", "--repeats", "1"])
    rows = re.findall(r"^(\D+?) +(\d+\.\d) +(\d+\.\d) +\d+\.\d +(\d+\.\d) +\d+\.\d$", capsys.readouterr().out, re.M)
    names = ["confusion matrix", "trimap, border classes", "trimap, border void", "boundary IoU"]
    assert [name for name, *_ in rows] == names


@pytest.mark.slow
def test_coco_benchmark_prints_a_row_a_measure(tmp_path, capsys, monkeypatch):
    """It also compares labels with those drawn pixel by pixel."""
    monkeypatch.setattr("benchmarks.coco_files.NUM_OUTLINES", 20)
    flags = ["--images", "40", "--outlines", "300", "--labels", "2", "--folder", str(tmp_path / "data")]
    coco_benchmark.main(flags)
    rows = dict(re.findall(r"^(\D.*?) +(\d+\.\d+)$", capsys.readouterr().out, re.MULTILINE))
    assert len(rows) == 15 and all(float(value) >= 0 for value in rows.values())
    assert float(rows["label, ms"]) > 0 and 0 < float(rows["cache, MiB"]) < 2


def test_scoring_benchmark_prints_a_row_a_function(capsys, monkeypatch):
    """It also compares the counts."""
    monkeypatch.setattr(scoring_benchmark, "report_memory", lambda *_: None)  # a new process
    scoring_benchmark.main(["--size", "65", "--repeats", "1"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if re.search(r"\d\.\d\d +\d+\.\d$", line)]
    assert len(rows) >= 13 and rows[0][:3] == ["reading", "the", "logits"] and rows[0][-1] == "1.0"


def table_rows(out: str, title: str) -> list[list[str]]:
    """The cells of a Markdown table without its header."""
    text = out.split(f"## {title}")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"][2:]


@pytest.mark.slow
def test_gpu_benchmark_measures_training_scoring_and_waiting(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.waiting.NUM_FILES", 4)
    monkeypatch.setattr(gpu_benchmark, "VOC_SIZES", ((30, 40),))
    monkeypatch.setitem(FIRST, "compiled", 3600)  # compiling takes minutes
    flags = "--device cpu --networks mobilenet --size 33 --batch-size 2 --steps 1 --repeats 1 --workers 0"
    assert gpu_benchmark.main([*flags.split(), "--minutes", "50"]) == 0
    out = capsys.readouterr().out
    training, scoring = table_rows(out, "Training\n"), table_rows(out, "Scoring")
    names = [(precision, order) for precision in ("bf16", "float32") for order in ("channels-last", "contiguous")]
    assert [tuple(row[2:4]) for row in training] == names and all(float(row[5]) > 0 for row in training)
    assert [row[4] for row in scoring] == ["memory"] * 3 + ["JPEG, 0 workers"]
    (_, *alone), (_, wait, step, _, from_memory) = table_rows(out, "Training from JPEG")
    assert 0 < float(alone[0]) <= float(alone[1]) and float(wait) < float(step) and from_memory == training[0][5]
    assert "bf16 to float32: " in out and table_rows(out, "Training with --compile") == []
    assert "- Training with --compile: MobileNetV2, 16, bf16, channels-last, 33\n" in out


def test_a_row_without_a_result_does_not_end_the_report(capsys):
    report = Report(minutes=10)
    report.table("T", ["name", "value"])
    assert report.row(["good"], lambda: 3, lambda value: [str(value)]) == 3
    assert report.row(["large"], lambda: raise_error(torch.OutOfMemoryError()), list) is None
    assert report.row(["bad"], lambda: raise_error(RuntimeError("x")), list) is None
    report.end = 0
    assert report.row(["late"], lambda: 3, list) is None
    cells = [["good", "3"], ["large", "out of memory"], ["bad", "failed: RuntimeError"]]
    assert table_rows(capsys.readouterr().out, "T") == cells
    assert report.failed == ["T: bad"] and report.skipped == ["T: late"]


def raise_error(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(("status", "failed"), [(0, []), (1, ["tests"]), (None, ["tests"])])
def test_the_report_gives_the_counts_of_the_tests_that_need_a_gpu(status, failed, capsys, monkeypatch):
    def run(command, *, timeout, **_):
        assert command[1:3] == ["-m", "pytest"] and 0 < timeout < 200
        if status is None:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, status, "F.\n1 failed, 7 passed in 9.12s\n", "")

    monkeypatch.setattr("benchmarks.report.subprocess.run", run)
    report = Report(minutes=9)
    report.tests()
    out = capsys.readouterr().out
    assert report.failed == failed and ("not finished" if status is None else "`: 1 failed, 7 passed in 9.12s") in out


def test_ratios_compare_the_fastest_cases_that_were_measured():
    rates = {case: 100.0 for case in eager_cases(["resnet"])}
    rates[Case(network="resnet", channels_last=False)] = 150.0
    rates[Case(network="smp")] = 50.0
    rates[Case(network="torchvision", output_stride=8)] = 400.0
    found = dict(ratios(rates, ["resnet"]))
    assert found["ResNet-101, bf16 to float32"] == 1.5 and not any("--compile" in name for name in found)
    assert found["ResNet-101, bf16, channels-last to contiguous"] == pytest.approx(2 / 3)
    assert next(ratio for name, ratio in found.items() if "SMP" in name) == 3
    assert next(ratio for name, ratio in found.items() if "torchvision" in name) == 0.25


class DictOutput(nn.Conv2d):
    def forward(self, image):
        return {"out": super().forward(image)}


@pytest.mark.parametrize("network", [nn.Conv2d, DictOutput])
def test_the_plain_loop_of_other_libraries_trains(network):
    model, batch = network(3, 21, 1), random_batch(2, 5, 4, pin_memory=False)
    before = model.weight.detach().clone()
    plain_epoch(
        model, MemoryLoader([batch], 2), lr=0.1, amp="off", memory_format=torch.channels_last, is_compiled=False,
        device=torch.device("cpu"),
    )()  # fmt: skip
    assert not torch.equal(model.weight, before)


@pytest.mark.slow
def test_predict_benchmark_prints_a_row_a_network(capsys):
    assert predict_benchmark.main(["--networks", "mobilenet", "--size", "33", "49", "--repeats", "1"]) == 0
    rows = re.findall(r"^ +1 +(\d+\.\d) +(\d+\.\d\d)  (.*)$", capsys.readouterr().out, re.M)
    assert rows[0][1:] == ("1.00", "MobileNetV2") and all("SMP" in name for *_, name in rows[1:])


@pytest.mark.slow
def test_large_images_benchmark_measures_fresh_processes(capsys):
    """Windows need less memory, already slightly above the limit."""
    assert large_images_benchmark.main(["--size", "1300", "1700", "--classes", "3"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^MobileNetV2 +3 +(\w+) +(\d+\.\d) +(\d+\.\d\d)$", out, re.M)
    assert [protocol for protocol, *_ in rows] == ["auto", "whole"]
    assert 0.1 < float(rows[0][2]) < float(rows[1][2])
    assert re.search(r"^ratio \d+\.\d\d of the seconds, 0\.\d\d of the memory$", out, re.M)


@pytest.mark.slow
def test_step_and_memory_benchmarks_print_a_row_a_network(capsys):
    small = ["--networks", "mobilenet", "--size", "65", "--batch-size", "2"]
    assert train_step_benchmark.main([*small, "--repeats", "1"]) == 0
    assert memory_benchmark.main([*small, "--steps", "1"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("MobileNetV2, 2, ours")]
    milliseconds, gmac, cost, ratio, *_ = map(float, rows[0].split()[:4])
    assert ratio == 1 and cost == pytest.approx(milliseconds / gmac / 2, rel=0.2) and milliseconds > 0
    assert float(rows[1].split()[0]) > 10 and float(rows[1].split()[1]) == 1
