"""The benchmarks run and print their numbers; no test judges the speed."""

import re

from benchmarks import inference as inference_benchmark
from benchmarks import input as input_benchmark
from benchmarks import observers as observers_benchmark


def test_input_benchmark_prints_two_times_and_their_ratio(voc_root, capsys):
    input_benchmark.main(["--data-root", str(voc_root), "--crop-size", "65", "--repeats", "1"])
    out = capsys.readouterr().out
    alone, whole = (float(number) for number in re.findall(r"^.*?(\d+\.\d+)$", out, re.MULTILINE)[:2])
    ratio = float(re.search(r"^ratio (.*)$", out, re.MULTILINE)[1])
    assert 0 < alone < whole and abs(ratio - whole / alone) < 0.5 * ratio


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
