"""Every command answers --help and mistakes in its flags before it imports anything that takes long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import startup

ROOT = Path(__file__).parents[1]
SLOW = (
    "torch", "torchvision", "scipy", "matplotlib", "tensorboardX", "google", "pycocotools", "onnx", "onnxruntime",
    "onnxscript", "sympy", "safetensors", "huggingface_hub", "segmentation_models_pytorch", "timm",
)  # fmt: skip

# Runs commands as `python -m` does, in one process, in which an import of `slow` modules fails
DRIVER = """
import contextlib, io, json, runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in slow:
            raise AssertionError(f"imports {name}")

slow, calls = json.loads(sys.argv[1])
sys.meta_path.insert(0, Refuse())
answers = []
for command, *arguments in calls:
    sys.argv[1:] = arguments
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
            status = None
        except SystemExit as error:
            status = error.code
        except AssertionError as error:
            status = str(error)
    answers.append([status, out.getvalue()])
print(json.dumps(answers))
"""
MISTAKES = [  # a command with its flags; what the line names
    ("train --dataset cocoa", "did you mean coco?"),
    ("train --epochs 0", "above 0"),
    ("train --nesterov --momentum 0", "--momentum above 0"),
    ("train --ft", "--resume FILE"),
    ("train --weights-from xception65_coco_voc_trainau", "did you mean xception65_coco_voc_trainaug?"),
    ("train --backbone drn --out-stride 32", "drn has no output stride 32"),
    ("train --backbone drn --multi-grid", "--multi-grid is defined for"),
    ("train --backbone timm/resnet50d --multi-grid", "leave it out for timm/resnet50d"),
    ("train --backbone timm/resnet50d/x", "choose from"),
    ("train --crop-size 1 2 3", "--crop-size 1 2 3"),
    ("train --dataset pascal --data-root nowhere", "nowhere"),
    ("train --dataset cityscapes --data-root nowhere", "nowhere"),
    ("evaluate --out scores", "--checkpoint"),
    ("evaluate --checkpoint a --crop-size 65", "--protocol center-crop or slide"),
    ("evaluate --checkpoint a --protocol center-crop --stride 65", "--protocol slide"),
    ("predict --checkpoint a --out b", "nothing to label"),
    ("predict --checkpoint a --out b --video c --scores", "--video"),
    ("export --checkpoint a --out b.pt2", "ends in .onnx"),
    ("dataloaders.show --dataset demo --out a.jpg", "ends in .png"),
    ("dataloaders.prepare voc", "choose from"),
]


def answers(calls: list[list[str]]) -> list[tuple[int | str | None, str]]:
    """(exit status, or the import that was refused; what was printed) of each call."""
    result = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([SLOW, calls])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(result.stdout)


def test_help_and_mistakes_import_nothing_slow():
    names = startup.commands()
    assert {"train", "evaluate", "predict", "export", "dataloaders.check", "utils.run.compare"} <= set(names)
    calls = [[name, "--help"] for name in names] + [[name, "--no-such-flag"] for name in names]
    calls += [line.split() for line, _ in MISTAKES]
    found = answers(calls)
    wrong = [
        (call, status) for call, (status, _) in zip(calls, found, strict=True) if status != 2 * (call[1] != "--help")
    ]
    assert wrong == []
    for name, (_, text) in zip(names, found, strict=False):
        assert text.startswith("usage: ") and "--help" in text, name
    for (line, named), (_, text) in zip(MISTAKES, found[2 * len(names) :], strict=True):
        assert named in text and text.startswith("error: ") and text.count("\n") == 1, (line, text)


@pytest.mark.slow
def test_the_benchmark_of_the_start(capsys):
    assert startup.main(["--commands", "utils.run.compare", "--repeats", "1"]) == 0
    base, row = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("import", "utils")))
    assert base[:2] == ["import", "torch"] and base[3] == "1.00"
    assert row[0] == "utils.run.compare" and all(float(cell) > 0 for cell in row[1:])
