"""Load weights of any supported format into a network, and report which entries fit.

Formats (docs/weights.md): our checkpoints, torchvision's ResNet and MobileNetV2, DRN, TensorFlow's DeepLab and its
ImageNet backbones, jfzhang95's ResNet and DRN; timm's where the backbone is one of timm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from modeling.deeplab import DeepLab
from modeling.layers import pad_strided_convolutions, set_epsilon
from modeling.pretrained import zoo
from modeling.pretrained.names import Weights, translate
from modeling.pretrained.tf_checkpoint import find_prefix, read_tf_checkpoint
from modeling.pretrained.tf_names import LOGITS
from utils.distributed import print_main
from utils.errors import UserError
from utils.hf_hub import find_weights
from utils.run.checkpoint import is_mapping, read_checkpoint
from utils.run.weights_file import WEIGHTS

PREPROCESSING = ("mean", "std", "epsilon", "padding")
CLASSIFIER_WEIGHTS = ("decoder.classifier.weight", "decoder.last_conv.8.weight", "logits/semantic/weights")
# What export.py writes, by the ending
PROGRAMS = {
    ".onnx": "holds a graph without weights to train, which only evaluate.py, predict.py and Segmenter run",
    ".pt2": "holds a program, which is not loaded here because nothing in a checkpoint is executed",
}
ARRAYS = Tensor | np.ndarray | np.generic
Source = str | Path | Mapping


@dataclass
class WeightsReport:
    """`format` of the source, and names of entries: `loaded` into the network, `missing` from the source, `unexpected`
    in it, `mismatched` in shape.
    """

    format: str
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        names = ("loaded", "missing", "unexpected", "mismatched")
        return f"{self.format} weights: " + ", ".join(f"{len(getattr(self, name))} {name}" for name in names)

    def faults(self, prefix: str = "") -> list[str]:
        """The entries below `prefix` that are missing, mismatched or unexpected."""
        return [name for name in self.missing + self.mismatched + self.unexpected if name.startswith(prefix)]

    def require(self, what: str, source: object, fix: str, prefix: str = "") -> None:
        """Raise UserError if there are faults below `prefix`. `what`: the name of that part of the network."""
        if faults := self.faults(prefix):
            examples = ", ".join(faults[:3]) + (", ..." if len(faults) > 3 else "")
            raise UserError(f"{source} does not fill the {what} ({self}; such as {examples}): {fix}")


def load_weights(
    model: nn.Module, source: Source, *, prefix: str = "", content: Mapping | None = None
) -> WeightsReport:
    """Copy every entry of `source` whose name and shape `model` has into it, in place, and set the preprocessing that
    these weights were trained with: epsilon and padding, in a DeepLab also mean and std.

    `model`: a DeepLab, or a backbone (then the entries of the head are unexpected).
    `source`: as `read_source` takes it, or a mapping: a state dict of tensors or arrays, or the content of a checkpoint
    of ours (from one with averaged weights, these are taken).
    `prefix` ("backbone."): load only entries whose names begin with it.
    `content`: the result of `read_source(source)`, if the file has been read already.
    Entries that do not fit are in the report and raise nothing. Raises UserError for a file without weights.
    """
    if content is None:
        content = source if isinstance(source, Mapping) else read_source(source)
    weights = translate_weights(renamed(model, content), source)
    scope = "" if isinstance(model, DeepLab) else "backbone."  # of the names of `model` in a DeepLab
    own = {scope + name: value for name, value in model.state_dict().items() if (scope + name).startswith(prefix)}
    entries = {name: value for name, value in weights.entries.items() if name.startswith(prefix)}
    shared = [name for name in own if name in entries]
    report = WeightsReport(
        format=weights.format,
        loaded=[name for name in shared if own[name].shape == entries[name].shape],
        missing=[name for name in own if name not in entries and not name.endswith("num_batches_tracked")],
        unexpected=[name for name in entries if name not in own],
        mismatched=[name for name in shared if own[name].shape != entries[name].shape],
    )
    model.load_state_dict({name.removeprefix(scope): entries[name] for name in report.loaded}, strict=False)
    set_preprocessing(model, weights.preprocessing, prefix)
    return report


def renamed(model: nn.Module, content: Mapping) -> Mapping:
    """`content` by the names of `model`, if its backbone translates those of its library."""
    rename = getattr(getattr(model, "backbone", model), "renamed", None)
    return {"state_dict": rename(state_of(content))} | preprocessing_of(content) if rename else content


def translate_weights(content: Mapping, source: Source) -> Weights:
    """The entries of `content` under our names, with their preprocessing. Raises UserError for unsupported graphs."""
    try:
        weights = translate(state_of(content))
    except UserError as error:
        if isinstance(source, Mapping):
            raise
        raise UserError(f"{source}: {error}") from error
    return weights._replace(preprocessing=weights.preprocessing | preprocessing_of(content))


def set_preprocessing(model: nn.Module, preprocessing: Mapping, prefix: str) -> None:
    """Set `preprocessing` in place; with a `prefix`, epsilon only in that part. A backbone has no mean and std."""
    epsilon = {part: value for part, value in preprocessing.get("epsilon", {}).items() if f"{part}.".startswith(prefix)}
    if isinstance(model, DeepLab):
        model.configure(**{**preprocessing, "epsilon": epsilon})
        return
    if "backbone" in epsilon:
        set_epsilon(model, epsilon["backbone"])
    if "padding" in preprocessing:
        pad_strided_convolutions(model, preprocessing["padding"])


def read_source(source: str | Path) -> Mapping:
    """The content of a file of PyTorch or safetensors, or the variables of a TensorFlow checkpoint by name.

    `source`: the file, a TensorFlow prefix or folder, a folder of `modeling.publish`, or hf://owner/name[@revision].
    Raises UserError for a file or folder without weights.
    """
    path = find_weights(source)
    if path.suffix in PROGRAMS:
        raise UserError(f"{path} {PROGRAMS[path.suffix]}: give the checkpoint that it was exported from")
    if prefix := find_prefix(path):
        return read_tf_checkpoint(prefix)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder without a TensorFlow checkpoint (*.index) or {WEIGHTS}: name a file of weights"
        )
    content = read_checkpoint(path)
    try:
        state_of(content)
    except UserError as error:
        raise UserError(f"{path} has {error}") from None
    return content


def read_released(name: str) -> Mapping:
    """The variables of the released network `name`, with those outputs of its classifier that are classes.

    Raises UserError for an unknown name, or if the download fails.
    """
    released = zoo.released(name)
    content = read_source(zoo.get(released.url))
    classifier = {key: content[key][..., released.num_unused :] for key in LOGITS if key in content}
    return {**content, **classifier}


def state_of(content: Mapping) -> Mapping:
    """The state dict in the content of a file: averaged weights, else trained ones, else the content itself.

    Raises UserError if there is none.
    """
    state = content.get("ema_state_dict", content.get("state_dict", content))
    if not is_mapping(state) or not state or not all(isinstance(value, ARRAYS) for value in state.values()):
        raise UserError("no weights in it: give names with tensors or arrays")
    return state


def preprocessing_of(content: Mapping) -> dict:
    """The arguments of `DeepLab.configure` in a checkpoint of ours."""
    return {name: content[name] for name in PREPROCESSING if name in content}


def number_of_classes(content: Mapping) -> int | None:
    """The number of classes of a network's weights; None for a backbone alone."""
    state = state_of(content)
    name = next((name for name in CLASSIFIER_WEIGHTS if name in state), None)
    return None if name is None else state[name].shape[-1 if "/" in name else 0]


def load_backbone_weights(model: DeepLab, backbone: str, source: str, *, is_partial: bool = False) -> None:
    """Fill the backbone from `source`: imagenet, a name in the zoo, or a file of a backbone or a whole network.

    Prints the report. Raises UserError if the weights do not fill it, unless `is_partial`.
    """
    if source == "imagenet" and hasattr(model.backbone, "published_weights"):
        content = model.backbone.published_weights()
    else:
        content = read_source(zoo.backbone_weights(source, backbone) or source)
    report = load_weights(model, source, prefix="backbone.", content=content)
    print_main(f"backbone weights {source}: {report}")
    fix = "give weights of this network, `partial_weights` to take what fits, or `backbone_weights` none"
    if not is_partial:
        report.require(f"{backbone} backbone", source, fix, "backbone.")


def load_initial_weights(model: DeepLab, weights: Mapping, source: str, *, is_partial: bool = False) -> None:
    """Fill the whole network from `weights`, the content of `source`, to train on. Prints the report.

    If the classes differ, the classifier keeps its initial weights. Raises UserError if anything else is not filled,
    unless `is_partial`.
    """
    report = load_weights(model, source, content=weights)
    kept = report.missing + report.mismatched
    print_main(f"weights of {source}: {report}; left as initialized: {', '.join(kept[:3]) or 'none'}")
    faults = [name for name in report.faults() if "classifier" not in name]
    if faults and not is_partial:
        raise UserError(
            f"{source} does not fit the network ({faults[0]}; {report}): give the `backbone`, `head` and options it "
            "was trained with, or `partial_weights` to take what fits"
        )
