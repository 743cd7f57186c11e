"""hubconf.py through torch.hub, and the commands, from folders that have packages named as ours."""

import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import FAST, ROOT, complete
from sample_data import write_network

import hubconf
from modeling import BACKBONES
from predict import Segmenter

PACKAGES = ("config", "dataloaders", "modeling", "utils")


def load(entry: str, **arguments):
    return torch.hub.load(str(ROOT), entry, source="local", **arguments)


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A working directory whose own packages have our names."""
    folder = tmp_path / "project"
    for name in (*PACKAGES, "engine", "mypath"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"OWNER = 'project'\n\n\ndef helper():\n    return '{name}'\n")
    return folder


def test_the_hub_gives_the_segmenter_beside_modules_of_the_same_names(folder_network, folder_root):
    """This process has imported `utils` and `modeling`, which the hub must neither use nor replace."""
    image, before = folder_root / "JPEGImages/v.0.jpg", sys.modules["utils"]
    expected = Segmenter(folder_network, "cpu")
    path = list(sys.path)
    segmenter = load("segmenter", checkpoint=str(folder_network), device="cpu", flip=True, scales=(1.0, 1.5))
    assert np.array_equal(
        segmenter(image).labels, Segmenter(folder_network, "cpu", flip=True, scales=(1.0, 1.5))(image).labels
    )
    assert np.array_equal(
        load("segmenter", checkpoint=folder_network, device="cpu")(image).labels, expected(image).labels
    )
    assert sys.path == path and sys.modules["utils"] is before and type(segmenter) is not Segmenter
    with pytest.raises(ValueError, match=r"no file nowhere\.pth \(it is not there\): give the path"):
        load("segmenter", checkpoint="nowhere.pth")
    with pytest.raises(TypeError, match="flips"):
        load("segmenter", checkpoint=folder_network, flips=True)


def test_the_hub_gives_networks(folder_network):
    model = load("deeplabv3plus", backbone="mobilenet", num_classes=3, head="lite", width=0.25, output_stride=8)
    assert model.output_stride == 8 and model(torch.zeros(2, 3, 33, 33)).shape == (2, 3, 33, 33)
    with torch.device("meta"):
        assert load("deeplabv3plus", backbone="drn22").output_stride == 8
        assert load("deeplabv3plus").num_classes == 21
    trained = load("deeplabv3plus", weights=str(folder_network))
    assert not trained.training and trained.num_classes == 3
    state = torch.load(folder_network, weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())
    with pytest.raises(ValueError, match=r"does not fill the mobilenet network .*decoder\.classifier"):
        load("deeplabv3plus", num_classes=5, weights=str(folder_network))
    with pytest.raises(ValueError, match="unknown backbone 'vgg': choose one of"):
        load("deeplabv3plus", backbone="vgg")


def test_the_hub_lists_three_entry_points_and_all_backbones():
    public = {name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")}
    assert public == {"segmenter", "deeplabv3plus", "architectures"}
    listed = load("architectures")
    assert list(listed) == list(BACKBONES)
    assert listed["drn"]["default_output_stride"] == 8 and "multi_grid" in listed["resnet"]["options"]
    assert listed["xception41"]["heads"] == ("separable", "standard", "lite", "lite-decoder")


@pytest.mark.slow
def test_the_dependencies_are_what_the_entry_points_import():
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('hubconf.py', {str(ROOT / 'hubconf.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "assert 'torch' not in sys.modules\n"
        "module._import('modeling.segmenter')\n"
        "print(*{name.split('.')[0] for name in sys.modules})\n"
    )
    imported = set(complete([sys.executable, "-c", code]).split())
    assert set(hubconf.dependencies) <= imported
    required = {line.split(">=")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()} | {"PIL"}
    assert imported & required == set(hubconf.dependencies)


STRIDE = '"default_output_stride": 8'
SCRIPT = """
import sys
import torch
import utils  # before the hub is used

clone, other, checkpoint, image = sys.argv[1:]
segmenter = torch.hub.load(clone, "segmenter", checkpoint=checkpoint, device="cpu", source="local")
assert clone not in sys.path
for path, stride in ((other, 7), (clone, 8)):  # two versions in one process
    assert torch.hub.load(path, "architectures", source="local")["drn"]["default_output_stride"] == stride
import modeling, mypath, dataloaders  # after it
assert {m.OWNER for m in (modeling, utils, mypath, dataloaders)} == {"project"} and utils.helper() == "utils"
segmenter(image).label_image().save("labels.png")
"""


@pytest.mark.slow
def test_a_script_elsewhere_with_packages_of_our_names(folder_network, folder_root, elsewhere, tmp_path):
    """It keeps its own packages, imported before the hub is used or after; two clones do not meet either."""
    other, image = tmp_path / "other", folder_root / "JPEGImages/v.0.jpg"
    for name in ("modeling", "utils"):
        shutil.copytree(ROOT / name, other / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "hubconf.py", other)
    backbone = other / "modeling/backbone/__init__.py"
    assert backbone.read_text().count(STRIDE) == 1
    backbone.write_text(backbone.read_text().replace(STRIDE, STRIDE.replace("8", "7")))
    (elsewhere / "script.py").write_text(SCRIPT)
    complete([sys.executable, "script.py", str(ROOT), str(other), str(folder_network), str(image)], cwd=elsewhere)
    labels = np.asarray(Image.open(elsewhere / "labels.png"))
    assert np.array_equal(labels, Segmenter(folder_network, "cpu")(image).labels)


def test_a_notebook_elsewhere_shows_a_labeled_image(folder_network, folder_root, elsewhere, monkeypatch):
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(elsewhere)
    shell = InteractiveShell()
    image = folder_root / "JPEGImages/v.0.jpg"
    shell.user_ns |= {"clone": str(ROOT), "checkpoint": str(folder_network), "image": str(image)}
    shell.run_cell(
        "import torch\nsegmenter = torch.hub.load(clone, 'segmenter', checkpoint=checkpoint, source='local')"
    ).raise_error()
    shown, _ = shell.display_formatter.format(shell.run_cell("segmenter(image)").result)
    expected = Segmenter(folder_network)(image).overlay()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown["image/png"]))), np.asarray(expected))


@pytest.mark.slow
def test_commands_run_from_a_folder_with_packages_of_our_names(folder_network, folder_root, elsewhere):
    """By their path; a module of a package with PYTHONPATH, and there -P hides the packages of the folder."""
    image = folder_root / "JPEGImages/v.0.jpg"
    flags = ["--checkpoint", str(folder_network), "--out", "out"]
    complete([sys.executable, str(ROOT / "predict.py"), str(image), *flags, "--workers", "0"], cwd=elsewhere)
    assert np.array_equal(
        np.asarray(Image.open(elsewhere / "out/v.0.png")), Segmenter(folder_network, "cpu")(image).labels
    )
    is_safe = ["-P"] if sys.version_info >= (3, 11) else []
    folder = elsewhere if is_safe else elsewhere.parent
    published = [
        sys.executable,
        *is_safe,
        "-m",
        "modeling.publish",
        "--checkpoint",
        str(folder_network),
        "--out",
        "net",
    ]
    complete(published, {"PYTHONPATH": str(ROOT)}, folder)
    assert sorted(os.listdir(folder / "net")) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.slow
def test_a_run_trains_and_is_scored_from_such_a_folder(folder_root, elsewhere):
    data = ["--dataset", "folder", "--data-root", str(folder_root), "--workers", "1"]
    complete([sys.executable, str(ROOT / "train.py"), *FAST, *data, "--max-steps", "1"], cwd=elsewhere)
    best = "run/folder/x/experiment_0/model_best.safetensors"
    out = complete([sys.executable, str(ROOT / "evaluate.py"), "--checkpoint", best, "--device", "cpu"], cwd=elsewhere)
    assert "mIoU" in out


def test_a_class_of_the_hub_is_found_by_its_module(tmp_path):
    """As pickle, copy and dataclasses do."""
    network = write_network(tmp_path / "net.pth", ("a", "b"))
    result = load("segmenter", checkpoint=network, device="cpu")(np.zeros((9, 9, 3), np.uint8))
    assert getattr(sys.modules[type(result).__module__], type(result).__name__) is type(result)
