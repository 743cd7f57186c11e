"""A trained network, from a checkpoint that describes it, or from other weights and a description."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modeling.architecture import Architecture
from modeling.deeplab import DeepLab
from modeling.pretrained import zoo
from modeling.pretrained.load import load_weights, number_of_classes, read_source
from utils.distributed import is_main_process, print_main
from utils.errors import UserError
from utils.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE, VOC_CLASSES, Palette, voc_palette


@dataclass(frozen=True)
class LoadedModel:
    """`model` in evaluation mode, on the CPU; `classes` and `palette`, from the checkpoint or by their number;
    `config` of the run, empty for weights without one; `source` as the user gave it.
    """

    model: DeepLab
    classes: tuple[str, ...]
    palette: Palette
    config: Mapping
    source: str


def load_model(
    checkpoint: str | Path | None = None,
    *,
    weights_from: str | None = None,
    network: Mapping | None = None,
    out_stride: int | None = None,
    names: tuple[Sequence[str], Palette] | None = None,
    is_partial: bool = False,
) -> LoadedModel:
    """The network of `checkpoint` (any format of docs/weights.md), or the released one named `weights_from`.

    `network`: `backbone`, `head`, `num_classes`, `multi_grid`, `width`, `wide_tap` of weights without a description; it
    must not contradict a description. `names`: classes and palette for weights that do not name theirs.
    For weights that train.py did not write, prints how many entries were loaded.
    Raises UserError for a wrong argument, and for weights that do not fill the network, unless `is_partial`.
    """
    if (checkpoint is None) == (weights_from is None):
        raise UserError("which network? give a checkpoint, or weights_from with a name of docs/weights.md")
    source, described = str(weights_from or checkpoint), {}
    if weights_from:
        released = zoo.released(weights_from)
        described, checkpoint = released.architecture.to_config(), zoo.get(released.url)
    content = read_source(checkpoint)
    config = content.get("config", {})
    config = config if isinstance(config, Mapping) and "backbone" in config else {}
    classes = tuple(content.get("classes", ()))
    described = merge(described | config, network or {}, source)
    num_classes = described.get("num_classes") or len(classes) or number_of_classes(content)
    if "backbone" not in described or not num_classes:
        missing = "--num-classes" if "backbone" in described else "`backbone` (and head, multi_grid where they differ)"
        raise UserError(f"{source} does not say which network it is of: give {missing}")
    if out_stride:
        described = {**described, "out_stride": out_stride}
    model = Architecture.from_config(described, num_classes=num_classes).build()
    report = load_weights(model, source, content=content)
    if not is_partial:
        fix = "give the flags it was trained with, or `partial_weights` to take what fits"
        report.require(f"{described['backbone']} network", source, fix)
    if "epochs" not in config or report.faults():  # a checkpoint of train.py is complete: nothing to report
        print_main(f"weights {source}: {report}")
    warn_of_untrained(content.get("untrained", ()), source)
    classes, palette = classes_and_palette(content, num_classes, names)
    model.to(memory_format=torch.channels_last)  # on a CPU 0.6 of the time, and less memory
    return LoadedModel(model.eval(), classes, palette, config, source)


def warn_of_untrained(names: Sequence[str], source: str) -> None:
    """`names`: the entries that had no weights when `source` was converted, and are as they were initialized."""
    if names and is_main_process():
        print(
            f"note: {source}: its head was never trained ({len(names)} entries): "
            "what follows are no predictions of a trained network",
            file=sys.stderr,
        )


def merge(described: Mapping, given: Mapping, source: str) -> dict:
    """Both together. Raises UserError where an argument contradicts what the weights say of themselves."""
    for name, value in given.items():
        if name in described and described[name] != value:
            raise UserError(f"`{name}` {value} contradicts {source}, which has {described[name]}: leave it out")
    return {**described, **given}


def classes_and_palette(
    content: Mapping, num_classes: int, names: tuple[Sequence[str], Palette] | None
) -> tuple[tuple[str, ...], Palette]:
    """Those of the checkpoint; else `names` where their number is right; else those that the number suggests."""
    if classes := content.get("classes", ()):
        return tuple(classes), [tuple(color) for color in content.get("palette", voc_palette(num_classes))]
    if names and len(names[0]) == num_classes:
        return tuple(names[0]), names[1]
    return default_classes_and_palette(num_classes)


def default_classes_and_palette(num_classes: int) -> tuple[tuple[str, ...], Palette]:
    """VOC's for 21 classes, Cityscapes' for 19, else numbers in VOC's colors."""
    if num_classes == len(CITYSCAPES_CLASSES):
        return CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
    names = VOC_CLASSES if num_classes == len(VOC_CLASSES) else tuple(f"class {n}" for n in range(num_classes))
    return names, voc_palette(num_classes)
