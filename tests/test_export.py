"""export.py: files that compute what the checkpoint computes, and the commands that run them."""

import functools
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import write_network

import evaluate
import export
import predict
from benchmarks import predict as benchmark
from modeling import BACKBONES, HEADS, Architecture
from modeling.exported import FORMATS, write
from modeling.exported.graph import InferenceGraph, trace
from modeling.exported.metadata import Metadata
from modeling.exported.run import OnnxModel
from modeling.exported.write import WRITERS, read_program
from modeling.exported.write import export as write_export
from modeling.pretrained.load import read_source
from modeling.pretrained.loaded_model import LoadedModel, load_model
from predict import Segmenter
from utils import large_images
from utils.errors import UserError
from utils.inference import Predictor
from utils.palettes import voc_palette

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ("ground", "wall", "sky")
CPU = torch.device("cpu")
# Sides of k * 16 + 1, other sides, one pixel, a batch
SHAPES = [(1, 65, 65), (2, 64, 48), (1, 33, 50), (1, 1, 1), (3, 17, 34)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint and its exports of any size, by name. Traced once: seconds each."""
    folder = tmp_path_factory.mktemp("exported")
    found = {"checkpoint": write_network(folder / "model.pth.tar", CLASSES, dataset="folder", data_root="/nowhere")}
    content = torch.load(found["checkpoint"])
    content["state_dict"]["decoder.classifier.weight"] *= 0.05  # logits as large as those of a trained network
    torch.save(content, found["checkpoint"])
    for name, flags in {"logits.onnx": [], "labels.onnx": ["--output", "labels", "--size", "36", "48"]}.items():
        found[name] = folder / name
        command = ["--checkpoint", str(found["checkpoint"]), "--out", str(found[name])]
        assert export.main([*command, *flags]) == 0
    return found


def random_images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_gives_the_logits_of_its_checkpoint_at_any_size(files, shape):
    """onnxruntime alone, as a user without this repository runs it."""
    session = onnxruntime.InferenceSession(str(files["logits.onnx"]))
    images = random_images(*shape)
    (logits,) = session.run(["logits"], {"image": images.numpy()})
    expected = Predictor(load_model(files["checkpoint"]).model, CPU)(images)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-3)
    assert logits.dtype == np.float32 and (logits.std() > 0.01 or shape[1:] == (1, 1))


@pytest.mark.slow
def test_a_graph_of_labels_gives_uint8(files):
    session = onnxruntime.InferenceSession(str(files["labels.onnx"]))
    images = random_images(2, 36, 48)
    (labels,) = session.run(["labels"], {"image": images.numpy()})
    expected = Predictor(load_model(files["checkpoint"]).model, CPU)(images).argmax(1)
    assert labels.dtype == np.uint8 and (labels == expected.numpy()).mean() > 0.999


@pytest.mark.slow
def test_the_metadata_says_what_the_graph_is(files):
    entries = {entry.key: json.loads(entry.value) for entry in onnx.load(files["logits.onnx"]).metadata_props}
    assert entries["classes"] == list(CLASSES) and entries["palette"] == [list(color) for color in voc_palette(3)]
    assert entries["protocol"] == "whole" and entries["output_stride"] == 16 and entries["size"] is None
    assert entries["checkpoint"] == "model.pth.tar" and entries["version"]
    assert entries["mean"] == pytest.approx([0.485, 0.456, 0.406]) and entries["output"] == "logits"


@pytest.mark.slow
def test_a_program_is_saved_with_its_metadata_and_not_loaded_by_the_commands(files, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    assert export.main(["--checkpoint", str(files["checkpoint"]), "--format", "torch", "--out", str(path)]) == 0
    assert "100.0000% of the labels are equal on 4 images" in capsys.readouterr().out
    predictor, run = Predictor(load_model(files["checkpoint"]).model, CPU), read_program(path)
    for shape in SHAPES:
        images = random_images(*shape)
        assert torch.equal(run(images), predictor(images))
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    assert Metadata.from_strings(json.loads(extra["metadata.json"]), path).classes == CLASSES
    assert predict.main(["--checkpoint", str(path), "--out", str(tmp_path), str(path)]) == 2
    assert "holds a program, which is not loaded here" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_evaluate_scores_a_graph_as_its_checkpoint(files, folder_root, tmp_path):
    scores = {}
    for name in ("checkpoint", "logits.onnx", "labels.onnx"):
        command = ["--checkpoint", str(files[name]), "--data-root", str(folder_root), "--workers", "0"]
        assert evaluate.main([*command, "--device", "cpu", "--out", str(tmp_path / name)]) == 0
        scores[name] = json.loads((tmp_path / name / "metrics.json").read_text())
    assert scores["logits.onnx"]["miou"] == pytest.approx(scores["checkpoint"]["miou"], abs=1e-3)
    assert scores["labels.onnx"]["miou"] == pytest.approx(scores["checkpoint"]["miou"], abs=1e-3)
    for key in ("protocol", "out_stride", "amp", "dataset"):
        assert scores["logits.onnx"][key] == scores["checkpoint"][key]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"flip": True}, {"window": 33, "stride": 20}, {"scales": (0.5, 1.0)}])
def test_segmenter_runs_a_graph_with_everything_outside_of_it(files, options):
    """A resized image is rounded to 8 bits for the graph."""
    image = Image.fromarray(random_images(1, 40, 52)[0].permute(1, 2, 0).numpy())
    one, other = (Segmenter(files[name], "cpu", **options)(image) for name in ("checkpoint", "logits.onnx"))
    limit = 0.05 if "scales" in options else 1e-3
    np.testing.assert_allclose(one.scores, other.scores, atol=limit)
    assert (one.labels == other.labels).mean() > (0.98 if "scales" in options else 0.999)
    assert other.classes == CLASSES and list(other.palette) == list(one.palette)


@pytest.mark.slow
def test_predict_labels_with_a_graph(files, tmp_path):
    Image.fromarray(random_images(1, 36, 48)[0].permute(1, 2, 0).numpy()).save(tmp_path / "x.png")
    labels = []
    for name in ("checkpoint", "logits.onnx", "labels.onnx"):
        command = ["--checkpoint", str(files[name]), "--out", str(tmp_path / name), "--workers", "0"]
        assert predict.main([*command, str(tmp_path / "x.png")]) == 0
        labels.append(np.asarray(Image.open(tmp_path / name / "x.png")))
    assert np.array_equal(labels[0], labels[1]) and np.array_equal(labels[0], labels[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("logits.onnx", {"out_stride": 8}, "`out_stride` cannot change"),
        ("logits.onnx", {"network": {"backbone": "drn"}}, "`backbone` cannot change"),
        ("logits.onnx", {"amp": "bf16"}, "`amp` bf16: "),
        ("labels.onnx", {"flip": True}, "gives labels, and scales, flips and windows are averages of logits"),
        ("labels.onnx", {"scales": (0.5, 1.0)}, "gives labels"),
        ("labels.onnx", {"window": 17}, "gives labels"),
    ],
)
def test_what_a_graph_cannot_do_is_one_line(files, name, arguments, text):
    with pytest.raises(UserError) as caught:
        Segmenter(files[name], "cpu", **arguments)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_graph_of_one_size_takes_no_other(files):
    with pytest.raises(UserError, match=r"takes images of 36x48 alone, this one has 30x44: export it without `size`"):
        Segmenter(files["labels.onnx"], "cpu")(np.zeros((30, 44, 3), np.uint8))


@pytest.mark.slow
def test_files_of_others_are_one_line(files, tmp_path):
    foreign, broken = tmp_path / "foreign.onnx", tmp_path / "broken.onnx"
    graph = onnx.load(files["logits.onnx"])
    del graph.metadata_props[:]
    onnx.save(graph, foreign)
    broken.write_bytes(b"nothing")
    for path, text in {foreign: "was not written by export.py", broken: "cannot be read as an ONNX file",
                       tmp_path / "missing.onnx": "no file"}.items():  # fmt: skip
        with pytest.raises(UserError, match=text):
            load_model(path)
    with pytest.raises(UserError, match="holds a graph without weights to train"):
        read_source(files["logits.onnx"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--out", "model.pt"], "--out model.pt: the name of this --format ends in .onnx"),
        (["--out", "model.onnx", "--format", "torch"], "ends in .pt2"),
        (["--out", "missing/model.onnx"], "its folder is not there"),
    ],
)
def test_wrong_names_are_one_line_before_anything_is_traced(files, flags, text, capsys):
    assert export.main(["--checkpoint", str(files["checkpoint"]), *flags]) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_without_the_packages_of_onnx_one_line_names_them(files, monkeypatch, tmp_path):
    loaded = load_model(files["checkpoint"])
    for name in ("onnxruntime", "onnxscript"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(UserError, match=rf"needs {name}: pip install onnx onnxscript onnxruntime"):
                write_export(loaded, tmp_path / "x.onnx", [])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="needs onnxruntime: pip install"):
        load_model(files["logits.onnx"])


@pytest.mark.slow
def test_a_file_that_differs_from_its_checkpoint_is_not_left_behind(files, tmp_path, monkeypatch, capsys):
    def read(path):
        run = OnnxModel(path).run
        return lambda image: run(image) + 0.002

    def write(_program, path, _metadata):
        shutil.copy(files["logits.onnx"], path)

    monkeypatch.setattr("modeling.exported.write.trace", lambda graph, size: None)
    monkeypatch.setitem(WRITERS, "onnx", (write, read))
    assert export.main(["--checkpoint", str(files["checkpoint"]), "--out", str(tmp_path / "x.onnx")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"logits differ by at most 0\.002\d?, 100\.0000% of the labels are equal on 4 images", line)
    assert not [path for path in tmp_path.iterdir() if "x.onnx" in path.name]


@pytest.mark.slow
def test_the_benchmark_prints_a_row_a_file_and_their_ratio(files, capsys):
    flags = ["--graphs", str(files["logits.onnx"]), "--size", "36", "48", "--repeats", "1"]
    benchmark.main(["--checkpoint", str(files["checkpoint"]), *flags])
    rows = re.findall(r"^ +1 +(\d+\.\d) +(\d+\.\d\d)  (.*)$", capsys.readouterr().out, re.M)
    assert [name for *_, name in rows] == [str(files["checkpoint"]), str(files["logits.onnx"])]
    assert rows[0][1] == "1.00"


@pytest.mark.slow
def test_large_images_are_split_except_by_graphs_of_one_size(files, monkeypatch):
    monkeypatch.setattr(large_images, "MAX_PIXELS", 100)
    monkeypatch.setattr(large_images, "WINDOW", 33)
    image = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)
    whole, split = (Segmenter(files["checkpoint"], "cpu", whole=whole)(image).labels for whole in (True, False))
    assert (split != whole).mean() > 0.02
    assert (Segmenter(files["logits.onnx"], "cpu")(image).labels == split).mean() > 0.99
    assert (Segmenter(files["labels.onnx"], "cpu")(image).labels == whole).mean() > 0.99


def trained_like(backbone: str, head: str, **options) -> LoadedModel:
    """Random weights, with the statistics of batch norm that random images give: else deep networks overflow."""
    model = Architecture(backbone=backbone, num_classes=3, head=head, **options).build().train()
    model.set_batch_norm_momentum(1.0)
    torch.nn.init.normal_(model.decoder.classifier.weight, std=0.01)  # random layers amplify rounding: small logits
    with torch.no_grad():
        brightness, contrast = torch.randn(8, 3, 1, 1), torch.rand(8, 1, 1, 1) + 0.5
        model(brightness + contrast * torch.randn(8, 3, 65, 65))  # unlike images: else image pooling amplifies
    return LoadedModel(model.eval(), CLASSES, voc_palette(3), {}, "random weights")


EVERY = [(name, "separable") for name in BACKBONES] + [("mobilenet", head) for head in HEADS[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "head"), EVERY)
def test_every_backbone_and_head_is_exported(backbone, head, tmp_path, monkeypatch):
    """Traced once for both formats, as that takes longest."""
    monkeypatch.setattr(write, "trace", functools.cache(lambda graph, size: trace(graph, size)))
    monkeypatch.setattr(write, "InferenceGraph", functools.cache(lambda model, **_: InferenceGraph(model)))
    images = [random_images(1, 65, 65), random_images(2, 50, 71)]
    loaded = trained_like(backbone, head)
    spread = Predictor(loaded.model, CPU)(images[1]).std()
    for format, ending in FORMATS.items():
        found = write_export(loaded, tmp_path / f"x{ending}", images, format=format)
        assert (tmp_path / f"x{ending}").exists() and found.num_images == 3
        assert found.max_difference < 0.02 * spread


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"output_stride": 8}, {"wide_tap": True}])
def test_options_of_a_network_are_exported(options, tmp_path):
    loaded = trained_like("mobilenet", "separable", **options)
    loaded.model.configure(padding="same", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert write_export(loaded, tmp_path / "x.onnx", [random_images(1, 50, 71)]).equal > 0.999


@pytest.mark.slow
def test_half_computes_in_float16_and_leaves_the_network(tmp_path):
    loaded = trained_like("mobilenet", "separable")
    found = write_export(loaded, tmp_path / "half.onnx", [random_images(1, 50, 71)], half=True)
    write_export(loaded, tmp_path / "full.onnx", [random_images(1, 50, 71)])
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * (tmp_path / "full.onnx").stat().st_size
    assert found.max_difference > 1e-4 and next(loaded.model.parameters()).dtype == torch.float32
