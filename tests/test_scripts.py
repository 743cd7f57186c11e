"""The shell scripts as users call them, on small data."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = ["--backbone", "mobilenet", "--backbone-weights", "none", "--head", "lite", "--crop-size", "33", "--batch-size",
         "2", "--workers", "0", "--max-steps", "1"]  # fmt: skip


def bash(script: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / script), *map(str, flags)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_train_voc(voc_root, sbd_root, tmp_path):
    done = bash("train_voc.sh", "--data-root", voc_root, "--sbd-root", sbd_root, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pascal: 8 training and 3 validation pictures" in done.stdout
    (sheet,) = tmp_path.glob("run/pascal/deeplab-mobilenet/experiment_0/sheet.png")
    assert str(sheet.relative_to(tmp_path)) in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "cityscapes"])
def test_train_coco_and_cityscapes(name, request, tmp_path):
    root = request.getfixturevalue(f"{name}_root")
    done = bash(f"train_{name}.sh", "--data-root", root, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{name}: " in done.stdout


@pytest.mark.slow
def test_train_demo_takes_flags(tmp_path):
    done = bash("train_demo.sh", "--max-steps", "1", "--no-val", "--head", "lite", "--workers", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "demo: 480 training" in done.stdout


def test_setup_takes_no_python_that_lacks_the_requirements(tmp_path):
    """A Python without them is passed over for one that has them."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    script = f'PYTHON={bare}/bin/python; . "{ROOT}/setup.sh"; echo "$PYTHON"'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0 and str(bare) not in done.stdout, done.stderr
