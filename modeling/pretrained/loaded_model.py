"""Load a trained network: a checkpoint that describes itself, or other weights with a description."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modeling.architecture import CONFIG_KEYS, Architecture
from modeling.deeplab import DeepLab
from modeling.exported.metadata import PROTOCOL
from modeling.exported.run import OnnxModel
from modeling.pretrained import zoo
from modeling.pretrained.load import load_weights, number_of_classes, read_released, read_source
from utils.distributed import is_main_process, print_main
from utils.distributed.device import resolve_amp
from utils.errors import UserError
from utils.inference import Predictor
from utils.palettes import (
    ADE20K_CLASSES,
    ADE20K_PALETTE,
    CITYSCAPES_CLASSES,
    CITYSCAPES_PALETTE,
    VOC_CLASSES,
    Palette,
    voc_palette,
)
from utils.run.checkpoint import is_ours


@dataclass(frozen=True)
class LoadedModel:
    """`model`: on the CPU, in evaluation mode; an OnnxModel for a file of export.py. `classes` and `palette`: by class
    number. `config`: that of the checkpoint, empty for weights without one. `source`: as the user gave it.
    """

    model: DeepLab | OnnxModel
    classes: tuple[str, ...]
    palette: Palette
    config: Mapping
    source: str

    @property
    def output_stride(self) -> int:
        """Of the network, also if it is in a graph."""
        return self.model.metadata.output_stride if isinstance(self.model, OnnxModel) else self.model.output_stride

    @property
    def gives_labels(self) -> bool:
        """Whether it is a graph of labels, which has no probabilities."""
        return isinstance(self.model, OnnxModel) and self.model.gives_labels

    @property
    def has_fixed_size(self) -> bool:
        """Whether it is a graph that takes images of one size alone."""
        return isinstance(self.model, OnnxModel) and self.model.metadata.size is not None

    def predictor(
        self,
        device: torch.device,
        *,
        amp: str = "auto",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        window: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
    ) -> Predictor:
        """A Predictor on `device`, with `amp` auto resolved; a graph has its own precision.

        Raises UserError for what a graph cannot do: another precision, and averages of labels.
        """
        if isinstance(self.model, OnnxModel):
            if amp not in ("auto", "off"):
                raise UserError(f"`amp` {amp}: {self.source} has the precision it was exported with: leave it out")
            if self.gives_labels and (tuple(scales) != (1.0,) or flip or window):
                raise UserError(
                    f"{self.source} gives labels, and scales, flips and windows are averages of logits: export it with "
                    "`output` logits, or leave them out"
                )
            amp = "off"
        views = {"scales": scales, "flip": flip, "window": window, "stride": stride}
        return Predictor(self.model.to(device), device, amp=resolve_amp(amp, device), **views)


def load_model(
    checkpoint: str | Path | None = None,
    *,
    weights_from: str | None = None,
    network: Mapping | None = None,
    out_stride: int | None = None,
    names: tuple[Sequence[str], Palette] | None = None,
    is_partial: bool = False,
) -> LoadedModel:
    """Load `checkpoint` (any format of docs/weights.md, or an .onnx file of export.py), or the released network named
    `weights_from`.

    `network`: `backbone`, `head`, `num_classes`, `multi_grid`, `width` and `wide_tap` of weights without a description;
    it must not contradict a description. `out_stride`: None takes that of training.
    `names`: classes and palette for weights that name none.
    Prints how many entries were loaded, except for a complete checkpoint of train.py.
    Raises UserError for invalid arguments, and for weights that do not fill the network, unless `is_partial`.
    """
    if (checkpoint is None) == (weights_from is None):
        raise UserError("which network? give either `checkpoint` or `weights_from`, a name of docs/weights.md")
    if checkpoint is not None and Path(checkpoint).suffix == ".onnx":
        return load_graph(checkpoint, {**(network or {}), "out_stride": out_stride, "partial_weights": is_partial})
    released = zoo.released(weights_from) if weights_from else None
    source = str(weights_from or checkpoint)
    content = read_released(weights_from) if weights_from else read_source(checkpoint)
    config = content["config"] if is_ours(content) else {}
    described = (released.architecture.to_config() if released else {}) | config
    architecture = find_architecture(content, merge(described, network or {}, source), out_stride, source)
    model = architecture.build()
    report = load_weights(model, source, content=content)
    if not is_partial:
        fix = "give the network it was trained as, or `is_partial` to take what fits"
        report.require(f"{architecture.backbone} network", source, fix)
    if "epochs" not in config or report.faults():  # a complete checkpoint of train.py needs no report
        print_main(f"weights {source}: {report}")
    warn_of_untrained(content.get("untrained", ()), source)
    classes, palette = classes_and_palette(content, architecture.num_classes, names)
    model.to(memory_format=torch.channels_last)  # on a CPU in less time and memory
    return LoadedModel(model.eval(), classes, palette, config, source)


def load_graph(path: str | Path, given: Mapping) -> LoadedModel:
    """A file of export.py. Raises UserError for any of the arguments `given`, since the graph is what it is."""
    if name := next((name for name, value in given.items() if value), None):
        raise UserError(f"`{name}` cannot change {path}, which holds its network: leave it out, or export it again")
    model = OnnxModel(path)
    found = model.metadata
    if found.protocol != PROTOCOL:
        raise UserError(f"{path} has the protocol {found.protocol!r}, unknown here: export it with this version")
    return LoadedModel(model.eval(), found.classes, found.palette, found.config, str(path))


def merge(described: Mapping, given: Mapping, source: str) -> dict:
    """Both descriptions together. Raises UserError if an argument in `given` contradicts that of the weights."""
    for name, value in given.items():
        if name not in (*CONFIG_KEYS, "num_classes"):
            raise UserError(f"{name!r} describes no network: give {', '.join(CONFIG_KEYS)} or num_classes")
        if name in described and described[name] != value:
            raise UserError(f"`{name}` {value} contradicts {source}, which has {described[name]}: leave it out")
    return {**described, **given}


def find_architecture(content: Mapping, described: Mapping, out_stride: int | None, source: str) -> Architecture:
    """The architecture of the weights in `content`. Raises UserError if `described` lacks something for it."""
    num_classes = described.get("num_classes") or len(content.get("classes", ())) or number_of_classes(content)
    if "backbone" not in described:
        missing = "`backbone` (and `head`, `multi_grid`, `width` or `wide_tap` if they differ from the default)"
        raise UserError(f"{source} does not say which network it is of: give {missing}")
    if not num_classes:
        raise UserError(f"{source} does not say which network it is of: give `num_classes`")
    if out_stride:
        described = {**described, "out_stride": out_stride}
    return Architecture.from_config(described, num_classes=num_classes)


def warn_of_untrained(names: Sequence[str], source: str) -> None:
    """Warn of the entries `names`, for which there were no weights when `source` was converted."""
    if names and is_main_process():
        print(
            f"note: {source}: its head was never trained ({len(names)} entries): predictions are random",
            file=sys.stderr,
        )


def classes_and_palette(
    content: Mapping, num_classes: int, names: tuple[Sequence[str], Palette] | None
) -> tuple[tuple[str, ...], Palette]:
    """Those of the checkpoint, else `names` if their number fits, else the default for `num_classes`."""
    if classes := content.get("classes", ()):
        return tuple(classes), [tuple(color) for color in content.get("palette", voc_palette(num_classes))]
    if names and len(names[0]) == num_classes:
        return tuple(names[0]), names[1]
    return default_classes_and_palette(num_classes)


def default_classes_and_palette(num_classes: int) -> tuple[tuple[str, ...], Palette]:
    """VOC's for 21 classes, Cityscapes' for 19, ADE20K's for 150, else numbers in VOC's colors."""
    if num_classes == len(CITYSCAPES_CLASSES):
        return CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
    if num_classes == len(ADE20K_CLASSES):
        return ADE20K_CLASSES, ADE20K_PALETTE
    names = VOC_CLASSES if num_classes == len(VOC_CLASSES) else tuple(f"class {n}" for n in range(num_classes))
    return names, voc_palette(num_classes)
