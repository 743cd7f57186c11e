"""The examples of docs/extending.md, applied to a copy of the repository, work as the page says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
# The table at the end of utils/losses.py begins here; the page puts the class above it
END_OF_LOSSES = "def build_loss("


class Block(NamedTuple):
    """A fenced block whose first line names a file: python (a file, or a class of one) or diff (lines of a table)."""

    language: str
    path: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(python|diff)\n# (\S+)\n(.*?)^```$", text, re.M | re.S)]


def apply(block: Block, root: Path) -> None:
    """Make the edit that the block shows."""
    file = root / block.path
    content = file.read_text() if file.exists() else ""
    if block.language == "diff":
        for hunk in block.text.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before, after = ("".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
            assert content.count(before) == 1, f"{block.path} does not contain, or not once: {before}"
            content = content.replace(before, after)
    elif content:
        content = content.replace(END_OF_LOSSES, f"{block.text}\n\n{END_OF_LOSSES}")
    else:
        content = block.text
    file.write_text(content)


@pytest.mark.parametrize("title", ["A backbone", "A dataset", "A loss"])
def test_an_example_has_at_most_40_lines_in_one_file_and_its_table(title):
    code, table = blocks(re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1])
    changed = [line for line in table.text.splitlines() if line[0] == "+"]
    assert (code.language, table.language) == ("python", "diff") and 1 <= len(changed) <= 2
    assert len(code.text.splitlines()) + len(changed) <= 40
    assert (ROOT / table.path).exists() and ((ROOT / code.path).exists() == (title == "A loss"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the repository with all examples of the page."""
    root = tmp_path_factory.mktemp("extended")
    for package in ("config", "dataloaders", "modeling", "utils"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in [*ROOT.glob("*.py"), ROOT / "pyproject.toml"]:
        shutil.copy(file, root)
    for block in blocks(PAGE):
        apply(block, root)
    return root


def run(root: Path, *arguments: str) -> str:
    """stdout of a Python process in `root` that must succeed."""
    ended = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return ended.stdout


def test_the_examples_are_in_the_style_of_the_repository(extended):
    files = sorted({block.path for block in blocks(PAGE)})
    run(extended, "-m", "ruff", "check", *files)
    run(extended, "-m", "ruff", "format", "--check", *files)


def write_pets(root: Path) -> Path:
    """Four images and trimaps, two in each list: left half pet, right half background, a border between."""
    trimap = np.full((40, 48), 1, np.uint8)
    trimap[:, 24:], trimap[:, 22:26] = 2, 3
    for folder in ("images", "annotations/trimaps"):
        (root / folder).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 48, 3), np.uint8)).save(
            root / f"images/cat_{number}.jpg"
        )
        Image.fromarray(trimap).save(root / f"annotations/trimaps/cat_{number}.png")
    (root / "annotations/trainval.txt").write_text("cat_0 1 1 1\ncat_1 1 1 1\n")
    (root / "annotations/test.txt").write_text("cat_2 1 1 1\ncat_3 1 1 1\n")
    return root


IMPORTS = """
import os, shutil, sys
import numpy as np, torch, torch.nn.functional as F, torchvision
import train
from dataloaders import build_dataset
from modeling import build_model
from modeling.segmenter import Segmenter
from modeling.weights import load_weights
from utils.losses import build_loss
torch.manual_seed(0)
torch.set_num_threads(1)
os.fsync = lambda _: None
"""
BACKBONE = """
theirs, image, maps = torchvision.models.resnet18().eval(), torch.randn(1, 3, 65, 97), {}
for layer in (theirs.layer1, theirs.layer4):
    layer.register_forward_hook(lambda module, _, output: maps.update({module: output}))
theirs(image)
for stride in (8, 16, 32):
    model = build_model("resnet18", 2, output_stride=stride).eval()
    report = load_weights(model.backbone, theirs.state_dict())
    assert not report.faults("backbone."), report
    low, features = model.backbone(image)
    assert low.shape == (1, 64, 17, 25) and features.shape == (1, 512, 64 // stride + 1, 96 // stride + 1)
    assert model(image).shape == (1, 2, 65, 97)
assert torch.equal(low, maps[theirs.layer1]) and torch.equal(features, maps[theirs.layer4])  # at stride 32
with torch.device("meta"):
    names = build_model("resnet34", 2).backbone.state_dict().keys()
    assert names == {name for name in torchvision.models.resnet34().state_dict() if not name.startswith("fc.")}
"""
DATASET = """
for split, start in (("train", 0), ("val", 2)):
    data = build_dataset("pets", split, root=sys.argv[1])
    assert data.ids == [f"cat_{start}", f"cat_{start + 1}"]
    image, label = map(np.asarray, data.read(0))
    assert image.shape == (40, 48, 3) and (label == [1] * 22 + [255] * 4 + [0] * 22).all()
"""
LOSS = """
logits, label = torch.randn(2, 3, 5, 6), torch.randint(0, 3, (2, 5, 6))
label[0, :2] = 255
total, weight = build_loss("smooth")(logits, label)
torch.testing.assert_close(total / weight, F.cross_entropy(logits, label, ignore_index=255, label_smoothing=0.1))
"""
RUN = """
flags = ["--backbone", "resnet18", "--dataset", "pets", "--data-root", sys.argv[1], "--loss-type", "smooth",
         "--backbone-weights", "none", "--head", "lite", "--crop-size", "33", "--batch-size", "2", "--workers", "0",
         "--device", "cpu", "--no-val"]
assert train.main([*flags, "--max-steps", "1"]) == 0
assert train.main([*flags, "--max-steps", "2", "--resume", "auto"]) == 0
result = Segmenter("run/pets/deeplab-resnet18/experiment_0/checkpoint.pth.tar")(np.zeros((40, 48, 3), np.uint8))
assert result.labels.shape == (40, 48) and result.classes == ("background", "pet")
shutil.rmtree("run")  # 90 MB
"""


@pytest.mark.slow
def test_the_examples_work(extended, tmp_path):
    """In one process, because its start is most of the time."""
    out = run(extended, "-c", IMPORTS + BACKBONE + DATASET + LOSS + RUN, str(write_pets(tmp_path / "pets")))
    assert "resnet18, lite head" in out and "pets: 2 training" in out and "resuming run/pets" in out
