"""Weights to share: model_best.safetensors of a run, folders of modeling.publish, and hf:// addresses."""

import inspect
import json
import shutil
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import Killed, error_line, in_process, log, said
from sample_data import write_network, write_voc

import evaluate
import predict
from benchmarks.kill_resume import content, differences
from modeling import Architecture, publish
from modeling import weights as weights_command
from modeling.backbone import BACKBONES
from modeling.pretrained.load import read_source
from modeling.pretrained.loaded_model import load_model
from predict import Segmenter
from utils.errors import UserError
from utils.run import files
from utils.run.checkpoint import read_checkpoint, write_checkpoint
from utils.run.environment import command_line
from utils.run.weights_file import to_safetensors

CLASSES = ("ground", "wall | fence", "sky")
FILES = {"model.safetensors", "config.json", "README.md"}


@pytest.fixture
def network(folder_root, tmp_path) -> Path:
    return write_network(tmp_path / "net.pth", CLASSES, dataset="folder", data_root=str(folder_root))


@pytest.fixture(scope="module")
def published_once(tmp_path_factory) -> Path:
    """From the weights of `network`, which are the same each time."""
    folder = tmp_path_factory.mktemp("once")
    network = write_network(folder / "net.pth", CLASSES, dataset="folder", data_root="/somewhere")
    assert publish.main(["--checkpoint", str(network), "--out", str(folder / "shared/net")]) == 0
    return folder / "shared/net"


@pytest.fixture
def published(published_once, tmp_path) -> Path:
    return Path(shutil.copytree(published_once, tmp_path / "shared/net"))


@pytest.fixture
def hub(published, monkeypatch) -> list:
    """A huggingface_hub that serves `published` as owner/net, and keeps the calls."""
    calls, module = [], types.ModuleType("huggingface_hub")

    def snapshot_download(repo_id, *, revision=None, allow_patterns):
        calls.append((repo_id, revision, sorted(allow_patterns)))
        if repo_id != "owner/net":
            raise RuntimeError("404 Client Error.\n\nRepository Not Found")
        return str(published)

    module.snapshot_download = snapshot_download
    module.create_repo = lambda repo_id, exist_ok=False: calls.append(("create", repo_id, exist_ok))
    module.upload_folder = lambda *, repo_id, folder_path, commit_message: calls.append(
        ("upload", repo_id, {path.name for path in Path(folder_path).iterdir()})
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def without_metadata(path: Path) -> None:
    """Rewrite a safetensors file with the header entry __metadata__ removed, by the format's definition."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def sources(published: Path, tmp_path: Path) -> dict[str, str]:
    """Every form in which the weights of `published` can be given."""
    alone, stripped = tmp_path / "alone/any name.safetensors", tmp_path / "stripped"
    alone.parent.mkdir()
    shutil.copy(published / "model.safetensors", alone)
    shutil.copytree(published, stripped)
    without_metadata(stripped / "model.safetensors")
    return {
        "folder": str(published),
        "file": str(published / "model.safetensors"),
        "file alone": str(alone),
        "file without metadata": str(stripped / "model.safetensors"),
        "hub": "hf://owner/net",
        "revision": "hf://owner/net@v1.0",
    }


def test_every_form_of_the_published_weights_labels_as_the_checkpoint(network, published, hub, folder_root, tmp_path):
    image = folder_root / "JPEGImages/v.0.jpg"
    expected, original = Segmenter(network, "cpu")(image), load_model(network)
    assert len(np.unique(expected.labels)) > 1
    for name, source in sources(published, tmp_path).items():
        result, loaded = Segmenter(source, "cpu")(image), load_model(source)
        assert np.array_equal(result.labels, expected.labels) and np.array_equal(result.scores, expected.scores), name
        assert result.classes == CLASSES and result.palette == expected.palette, name
        assert loaded.model.preprocessing == original.model.preprocessing
        assert loaded.config["crop_size"] == [33, 33] and loaded.config["dataset"] == "folder"
    assert hub[0] == ("owner/net", None, ["config.json", "model.safetensors"])
    assert hub[-1] == ("owner/net", "v1.0", ["config.json", "model.safetensors"])
    assert np.array_equal(Segmenter(Path("hf://owner/net"), "cpu")(image).labels, expected.labels)


@pytest.mark.slow
def test_the_commands_take_what_was_published(network, published, hub, folder_root, tmp_path, capsys):
    data, image = ["--dataset", "folder", "--data-root", str(folder_root)], str(folder_root / "JPEGImages/v.0.jpg")
    scores, labels, states = [], [], []
    for number, source in enumerate((network, published, published / "model.safetensors", "hf://owner/net")):
        out = tmp_path / f"out{number}"
        arguments = ["--checkpoint", str(source), "--workers", "0", "--device", "cpu", "--out", str(out)]
        assert evaluate.main([*arguments, *data]) == 0
        assert predict.main([image, *arguments]) == 0
        convert = [str(source), "--backbone", "mobilenet", "--head", "lite", "--width", "0.25"]
        converted = out / f"converted.{'safetensors' if number % 2 else 'pth'}"
        assert weights_command.main([*convert, "--out", str(converted)]) == 0
        scores.append(json.loads((out / "metrics.json").read_text())["per_class"])
        labels.append(np.asarray(Image.open(out / "v.0.png")).tolist())
        states.append(load_model(converted).model.state_dict())
    assert all(score == scores[0] for score in scores) and all(label == labels[0] for label in labels)
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
    capsys.readouterr()
    assert evaluate.main(["--checkpoint", str(published), "--workers", "0"]) == 2  # the data's folder is not published
    assert "/path/to/datasets/mine" in error_line(capsys.readouterr().err)


@pytest.mark.slow
def test_a_run_begins_with_the_published_weights(network, published, hub, folder_root, tmp_path, capsys):
    """The loss of the first step is that of the checkpoint, and the network comes from the description."""
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    flags = ["--max-steps", "1", "--no-val", "--dropout", "0", "--ft", "--resume"]
    losses = []
    for number, source in enumerate((network, published, published / "model.safetensors", "hf://owner/net")):
        status, folder = in_process(data, tmp_path / f"run{number}", *flags, str(source))
        losses.append(log(folder)[0]["train_loss"])
        assert status == 0 and read_checkpoint(folder / "checkpoint.pth.tar")["config"]["width"] == 0.25
    assert len(set(losses)) == 1
    assert "0 missing, 0 unexpected, 0 mismatched; left as initialized: none" in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(data root, folder) of a run of one epoch with averaged weights."""
    root = write_voc(tmp_path_factory.mktemp("data") / "mine", {"train": list("abcd"), "val": ["e"]}, num_classes=3)
    (root / "classes.txt").write_text("a\nb\nc\n")
    data = ["--dataset", "folder", "--data-root", str(root)]
    return root, in_process(data, tmp_path_factory.mktemp("runs"), "--epochs", "1", "--ema", "0.9")[1]


def test_a_run_leaves_its_best_weights_without_the_optimizer(finished):
    _, folder = finished
    best, weights = (read_checkpoint(folder / f"model_best.{ending}") for ending in ("pth.tar", "safetensors"))
    assert set(weights["state_dict"]) == set(best["ema_state_dict"]) and "optimizer" not in weights
    for name, value in best["ema_state_dict"].items():
        assert torch.equal(weights["state_dict"][name], value) and weights["state_dict"][name].dtype == value.dtype
    for key in ("config", "classes", "palette", "mean", "std", "epsilon", "padding", "epoch", "step", "best_pred"):
        assert weights[key] == best[key], key
    assert weights["scores"] == best["scores"] == json.loads((folder / "metrics.json").read_text())
    sizes = [(folder / f"model_best.{ending}").stat().st_size for ending in ("pth.tar", "safetensors")]
    assert sizes[1] < 0.5 * sizes[0]
    assert load_model(folder / "model_best.safetensors").classes == ("a", "b", "c")


@pytest.mark.parametrize("ending", ["pth.tar", "safetensors"])
def test_the_card_tells_data_recipe_command_commit_and_scores(finished, tmp_path, ending):
    root, folder = finished
    out = tmp_path / "net"
    assert publish.main(["--checkpoint", str(folder / f"model_best.{ending}"), "--out", str(out)]) == 0
    card, best = (out / "README.md").read_text(), read_checkpoint(folder / "model_best.pth.tar")
    assert card.startswith("---\nlicense: mit\n")
    assert "python train.py --backbone mobilenet --backbone-weights none" in card and "--data-root mine" in card
    assert f"`{best['config']['commit']}`" in card and "protocol whole, output stride 16" in card
    for name, row in best["scores"]["per_class"].items():
        assert f"| {name} | {100 * row['iou']:.2f} | " in card
    for row in ("epochs | 1", "ema | 0.9", "batch_size | 2", "lr | 0.01", "crop_size | 33 33"):
        assert f"| {row} |" in card
    assert "(4 train, 1 val images)" in card
    for path in out.iterdir():  # nothing of this machine is in what strangers download
        data = path.read_bytes()
        assert str(root.parent).encode() not in data and str(folder.parent).encode() not in data, path


@pytest.mark.slow
def test_a_kill_between_the_two_best_files_costs_neither(folder_root, tmp_path, monkeypatch):
    data = ["--dataset", "folder", "--data-root", str(folder_root), "--epochs", "2"]
    _, whole = in_process(data, tmp_path / "whole")
    replace = files.os.replace

    def die_before_the_best_checkpoint(source, target) -> None:
        if Path(target).name == "model_best.pth.tar":
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(files.os, "replace", die_before_the_best_checkpoint)
        in_process(data, tmp_path / "killed")
    (folder,) = (tmp_path / "killed/folder/x").iterdir()
    assert (folder / "model_best.safetensors").exists() and not (folder / "model_best.pth.tar").exists()
    assert in_process(data, tmp_path / "killed", "--resume", "auto")[0] == 0
    assert differences(content(whole), content(folder)) == []
    best, weights = (read_checkpoint(folder / f"model_best.{ending}") for ending in ("pth.tar", "safetensors"))
    assert best["step"] == weights["step"] and differences(best["state_dict"], weights["state_dict"]) == []


def test_a_run_keeps_the_commands_that_made_it(folder_root, tmp_path, monkeypatch):
    data = ["--dataset", "folder", "--data-root", str(folder_root), "--no-val"]
    in_process(data, tmp_path, "--max-steps", "1")
    in_process(data, tmp_path, "--resume", "auto", "--max-steps", "2")
    _, folder = in_process(data, tmp_path, "--resume", "auto", "--max-steps", "2")  # requeued: it is finished
    first, second = read_checkpoint(folder / "checkpoint.pth.tar")["config"]["commands"]
    assert first.startswith("python train.py --backbone mobilenet") and first.endswith("--max-steps 1")
    assert second.endswith("--resume auto --max-steps 2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    command = command_line("train.py", ["--data-root", "my data"])
    assert command == "torchrun --nnodes 2 --nproc-per-node 4 train.py --data-root 'my data'"


def test_folders_of_the_machine_are_left_out_and_other_paths_shortened():
    config = {
        "data_root": "/home/me/data", "run_dir": "/runs", "backbone_weights": "/home/me/r.pth", "resume": "hf://a/b@c/d",
        "lr": 0.1, "commands": ["python train.py --data-root '/home/m e/camvid/' --sbd-root=/x=y/sbd --lr 0.1"],
    }  # fmt: skip
    assert publish.without_paths(config) == {
        "backbone_weights": "r.pth", "resume": "hf://a/b@c/d", "lr": 0.1,
        "commands": ["python train.py --data-root camvid --sbd-root=sbd --lr 0.1"],
    }  # fmt: skip


def test_scores_of_evaluate_go_into_the_card(network, folder_root, tmp_path, capsys):
    data = ["--data-root", str(folder_root), "--workers", "0", "--device", "cpu", "--scales", "0.5", "1.0", "--flip"]
    assert evaluate.main(["--checkpoint", str(network), "--out", str(tmp_path / "scores"), *data]) == 0
    metrics = tmp_path / "scores/metrics.json"
    arguments = ["--checkpoint", str(network), "--out", str(tmp_path / "net"), "--scores", str(metrics)]
    # The data has other class names than the network: the scores are not those of its classes
    assert publish.main(arguments) == 2
    assert "has the classes ground, wall, sky, the checkpoint ground, wall | fence, sky" in capsys.readouterr().err
    scores = json.loads(metrics.read_text())
    scores["per_class"] = dict(zip(CLASSES, scores["per_class"].values(), strict=True))
    metrics.write_text(json.dumps(scores))
    assert publish.main([*arguments, "--license", "cc-by-4.0"]) == 0
    card = (tmp_path / "net/README.md").read_text()
    assert f"| wall \\| fence | {100 * scores['per_class'][CLASSES[1]]['iou']:.2f} | " in card
    assert "On folder val, 2 images; protocol whole, output stride 16, scales 0.5 1.0, flip." in card
    assert "license: cc-by-4.0\n" in card and str(tmp_path) not in card
    assert read_source(tmp_path / "net")["scores"]["scales"] == [0.5, 1.0]


def test_shared_strided_and_half_tensors_are_written_as_they_are(tmp_path):
    weight = torch.rand(4, 3, 5, 5).to(memory_format=torch.channels_last)
    state = {"one": weight, "two": weight, "part": weight[1:, :2], "half": weight.half(), "count": torch.tensor(7)}
    (tmp_path / "x.safetensors").write_bytes(to_safetensors({"state_dict": state, "config": {"backbone": "drn"}}))
    read = read_checkpoint(tmp_path / "x.safetensors")
    assert set(read["state_dict"]) == set(state) and read["config"] == {"backbone": "drn"}
    for name, value in state.items():
        assert torch.equal(read["state_dict"][name], value) and read["state_dict"][name].dtype == value.dtype


@pytest.mark.parametrize("backbone", ["mobilenet", *(pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES)])
def test_every_backbone_is_published(backbone, tmp_path):
    architecture = Architecture(backbone=backbone, num_classes=3)
    model = architecture.build()
    write_checkpoint(tmp_path / "net.pth", {"state_dict": model.state_dict(), "config": architecture.to_config()})
    assert publish.main(["--checkpoint", str(tmp_path / "net.pth"), "--out", str(tmp_path / "net")]) == 0
    loaded = load_model(tmp_path / "net").model
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>Not Found</html>" * 99)


def edit(**changes):
    """Change entries of config.json, as the only description there is."""

    def change(path: Path) -> None:
        without_metadata(path)
        file = path.with_name("config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def edit_config(**changes):
    return lambda path: edit(config=json.loads(path.with_name("config.json").read_text())["config"] | changes)(path)


def broken_json(path: Path) -> None:
    path.with_name("config.json").write_text("{")


def other_json(path: Path) -> None:
    path.with_name("config.json").write_text('{"model_type": "bert"}')


def undescribed(path: Path) -> None:
    without_metadata(path)
    path.with_name("config.json").unlink()


def missing(path: Path) -> None:
    path.unlink()


DAMAGES = [
    (cut, "model.safetensors cannot be read as safetensors ("),
    (cut_header, "model.safetensors cannot be read as safetensors ("),
    (empty, "model.safetensors cannot be read as safetensors (it is empty): give another file"),
    (text, "model.safetensors cannot be read as safetensors ("),
    (missing, "is a folder without a TensorFlow checkpoint (*.index) or model.safetensors"),
    (broken_json, "config.json cannot be read as JSON ("),
    (other_json, "config.json is not the description that model.safetensors holds: remove it"),
    (undescribed, "does not say which network it is of: give --backbone"),
    (edit(format_version=2), "config.json has format 2, this version reads 1: update the repository"),
    (edit(format_version="x"), "config.json is damaged, its description names no format_version"),
    (edit(config=[]), "config.json is damaged, its description names no format_version or config"),
    (edit(config={}), "config.json is damaged, its config names no backbone"),
    (edit(classes=["a", "b"], palette=[[0, 0, 0], [1, 1, 1]]), "does not fill the mobilenet network"),
    (edit(classes=5), "is damaged, its classes is '5'"),
    (edit(palette=[[0, 0, 0]]), "is damaged, it has 3 classes and 1 colors"),
    (edit(palette=[[0, 0, 300]] * 3), "is damaged, its palette is "),
    (edit(mean=["a", 0, 0]), "is damaged, its mean is "),
    (edit(epsilon={"backbone": "x"}), "is damaged, its epsilon is "),
    (edit(epsilon={"neck": 1e-5}), "is damaged, its epsilon is "),
    (edit(scores=[1]), "is damaged, its scores is '[1]'"),
    (edit_config(backbone="vgg"), "unknown backbone 'vgg': choose one of "),
    (edit_config(backbone="resnet50", width=1.0), "does not fill the resnet50 network"),
    (edit_config(width="wide"), "is damaged, its width is 'wide'"),
    (edit_config(out_stride=7), "mobilenet has no output stride 7"),
    (edit_config(crop_size=33), "is damaged, its crop_size is '33'"),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_folder_is_an_error_of_one_line(damage, expected, published, folder_root, tmp_path, capsys):
    damage(published / "model.safetensors")
    capsys.readouterr()
    image = str(folder_root / "JPEGImages/v.0.jpg")
    arguments = [image, "--out", str(tmp_path / "out"), "--workers", "0", "--device", "cpu"]
    assert predict.main([*arguments, "--checkpoint", str(published)]) == 2
    (line,) = said(capsys.readouterr().err)
    assert expected in line and line.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_file_cut_anywhere_is_an_error_of_one_line(published):
    path = published / "model.safetensors"
    whole = path.read_bytes()
    for size in [*range(0, 40, 3), *np.linspace(41, len(whole) - 1, 40).astype(int)]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cannot be read as safetensors"):
            load_model(published)


@pytest.mark.parametrize("form", ["folder", "file", "hub"])
def test_resuming_a_run_from_weights_alone_names_ft(form, published, hub, folder_root, tmp_path, capsys):
    source = sources(published, tmp_path)[form]
    data = ["--dataset", "folder", "--data-root", str(folder_root)]
    status, folder = in_process(data, tmp_path / "run", "--resume", source)
    assert status == 2 and folder is None
    assert f"error: {source} holds weights but no run to resume: add --ft" in said(capsys.readouterr().err)[-1]


OUTS = {
    "a file": (lambda out: out.write_text("x"), "is a file: give a folder"),
    "another folder": (lambda out: (out.mkdir(), (out / "thesis.tex").write_text("x")), "such as thesis.tex"),
    "a README alone": (lambda out: (out.mkdir(), (out / "README.md").write_text("x")), "such as config.json"),
}


@pytest.mark.parametrize("name", OUTS)
def test_files_of_others_are_not_replaced(name, network, tmp_path, capsys):
    make, expected = OUTS[name]
    out = tmp_path / "out"
    make(out)
    before = sorted(tmp_path.rglob("*"))
    assert publish.main(["--checkpoint", str(network), "--out", str(out)]) == 2
    assert expected in error_line(capsys.readouterr().err) and sorted(tmp_path.rglob("*")) == before


def test_a_published_folder_with_a_file_more_is_not_replaced(network, published, capsys):
    (published / "photo.png").write_bytes(b"x")
    assert publish.main(["--checkpoint", str(network), "--out", str(published)]) == 2
    assert "such as photo.png" in error_line(capsys.readouterr().err) and (published / "photo.png").exists()


def test_a_folder_is_replaced_completely_or_not_at_all(published, network, monkeypatch, capsys):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    arguments = ["--checkpoint", str(network), "--out", str(published), "--license", "cc0-1.0"]
    write, replace = files.write_atomically, files.os.replace

    def fail_at_the_card(path, data) -> None:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        write(path, data)

    def fail_at_the_last_rename(source, target) -> None:
        if Path(target) == published and Path(source).name.endswith(".part"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    for owner, name, function in ((files, "write_atomically", fail_at_the_card),
                                  (files.os, "replace", fail_at_the_last_rename)):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, function)
            assert publish.main(arguments) == 2
        assert "(No space left on device): give another --out" in error_line(capsys.readouterr().err)
        assert {path.name: path.read_bytes() for path in published.iterdir()} == before
        assert [path.name for path in published.parent.iterdir()] == [published.name]
    assert publish.main(arguments) == 0
    assert {path.name for path in published.iterdir()} == FILES
    assert [path.name for path in published.parent.iterdir()] == [published.name]
    assert "license: cc0-1.0" in (published / "README.md").read_text()


def test_a_folder_is_published_again_from_itself(published):
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    assert publish.main(["--checkpoint", str(published), "--out", str(published)]) == 0
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--checkpoint nowhere.pth", "no file nowhere.pth"),
        ("--checkpoint FOREIGN", "does not say which network it is of: convert it with modeling.weights first"),
        ("--checkpoint NETWORK --push net", "--push net is no repository: give owner/name"),
        ("--checkpoint NETWORK --scores NETWORK", "cannot be read as JSON"),
        ("--checkpoint NETWORK --scores LIST", "is no metrics.json of evaluate.py"),
        ("--checkpoint NETWORK --license a:b", "--license 'a:b' is no identifier"),
        ("--checkpoint hf://net", "hf://net is no repository: give hf://owner/name"),
        ("--checkpoint hf://owner/other", "cannot download hf://owner/other (RuntimeError: 404 Client Error.): check"),
    ],
)
def test_bad_input_to_publish_is_an_error_of_one_line(flags, expected, network, hub, tmp_path, capsys):
    torch.save({"features.0.0.weight": torch.ones(1)}, tmp_path / "foreign.pth")
    (tmp_path / "list.json").write_text("[]")
    paths = {"NETWORK": network, "FOREIGN": tmp_path / "foreign.pth", "LIST": tmp_path / "list.json"}
    capsys.readouterr()
    arguments = [str(paths.get(word, word)) for word in flags.split()]
    assert publish.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    (line,) = said(capsys.readouterr().err)
    assert line.startswith("error: ") and expected in line and not (tmp_path / "out").exists()


def test_push_uploads_the_folder(network, hub, tmp_path, capsys):
    arguments = ["--checkpoint", str(network), "--out", str(tmp_path / "out"), "--push", "owner/net"]
    assert publish.main(arguments) == 0
    assert hub == [("create", "owner/net", True), ("upload", "owner/net", FILES)]
    card = (tmp_path / "out/README.md").read_text()
    assert "--checkpoint hf://owner/net photo.jpg" in card and 'Segmenter("hf://owner/net")' in card
    assert capsys.readouterr().out.endswith("hf://owner/net\n")


def test_a_push_that_fails_keeps_the_folder(network, hub, tmp_path, monkeypatch, capsys):
    def refuse(*_arguments, **_named):
        raise RuntimeError("401 Client Error: Unauthorized\nmore lines")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "create_repo", refuse)
    assert publish.main(["--checkpoint", str(network), "--out", str(tmp_path / "out"), "--push", "owner/net"]) == 2
    line = error_line(capsys.readouterr().err)
    assert f"{tmp_path / 'out'} is written, but cannot be pushed to owner/net (RuntimeError: 401 Client Error" in line
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_without_huggingface_hub_one_line_names_it(network, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it was not installed
    assert publish.main(["--checkpoint", str(network), "--out", str(tmp_path / "out"), "--push", "owner/net"]) == 2
    assert "error: --push needs huggingface_hub: pip install huggingface_hub" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="hf://owner/net needs huggingface_hub: pip install huggingface_hub"):
        Segmenter("hf://owner/net")


def test_huggingface_hub_has_the_functions_that_are_called():
    hub = pytest.importorskip("huggingface_hub")
    inspect.signature(hub.snapshot_download).bind("owner/net", revision=None, allow_patterns=["config.json"])
    inspect.signature(hub.create_repo).bind("owner/net", exist_ok=True)
    inspect.signature(hub.upload_folder).bind(repo_id="owner/net", folder_path=Path(), commit_message="x")
