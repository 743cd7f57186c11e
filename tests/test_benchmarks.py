"""Benchmarks run and print what they promise; how fast is for their reader to judge."""

import re

from benchmarks import input as input_benchmark


def test_input_benchmark_prints_both_times_and_the_ratio(voc_root, capsys):
    input_benchmark.main(["--data-root", str(voc_root), "--crop-size", "65", "--repeats", "1"])
    out = capsys.readouterr().out
    alone, whole = (float(number) for number in re.findall(r"^.*?(\d+\.\d+)$", out, re.MULTILINE)[:2])
    ratio = float(re.search(r"^ratio (.*)$", out, re.MULTILINE)[1])
    assert 0 < alone < whole and abs(ratio - whole / alone) < 0.5 * ratio
