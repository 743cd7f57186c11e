"""A trained network, from a checkpoint that says what it is of, or from other weights and flags that say it."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dataloaders.palettes import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE, VOC_CLASSES, voc_palette
from errors import UserError
from modeling import DeepLab, build_model, default_output_stride, zoo
from modeling.weights import load_weights, number_of_classes, read_source
from utils.distributed import is_main_process, say

Palette = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Trained:
    """`model` in evaluation mode, on the CPU; `classes` and `palette`, which the checkpoint names or their number
    suggests; `config` of the run, empty for weights that have none; `source` as the user gave it.
    """

    model: DeepLab
    classes: tuple[str, ...]
    palette: Palette
    config: Mapping
    source: str


def load_trained(
    checkpoint: str | Path | None = None,
    *,
    weights_from: str | None = None,
    network: Mapping | None = None,
    out_stride: int | None = None,
    names: tuple[Sequence[str], Palette] | None = None,
    is_partial: bool = False,
) -> Trained:
    """The network of `checkpoint` (any format of docs/weights.md), or of the released one named `weights_from`.

    `network`: `backbone`, `head`, `num_classes`, `multi_grid`, `width`, `wide_tap` of weights that do not say it; it
    must not contradict those that do. `names`: classes and palette for weights that do not name theirs.
    Of weights that train.py did not write, prints how much of them went where.
    Raises UserError for this, and for weights that do not fill the network, unless `is_partial`.
    """
    if (checkpoint is None) == (weights_from is None):
        raise UserError("which network? give a checkpoint, or weights_from with a name of docs/weights.md")
    source = str(weights_from or checkpoint)
    known = {}
    if weights_from:
        known = zoo.released(weights_from).network
        checkpoint = zoo.get(zoo.released(weights_from).url)
    content = read_source(checkpoint)
    config = content.get("config", {})
    config = config if isinstance(config, Mapping) and "backbone" in config else {}
    classes = tuple(content.get("classes", ()))
    chosen = agree(known | config, network or {}, source)
    num_classes = chosen.get("num_classes") or len(classes) or number_of_classes(content)
    if "backbone" not in chosen or not num_classes:
        missing = "--num-classes" if "backbone" in chosen else "--backbone (and --head, --multi-grid where they differ)"
        raise UserError(f"{source} does not say which network it is of: give {missing}")
    model = build_model(
        chosen["backbone"], num_classes, head=chosen.get("head", "separable"),
        output_stride=out_stride or chosen.get("out_stride") or default_output_stride(chosen["backbone"]),
        multi_grid=chosen.get("multi_grid", False), width=chosen.get("width", 1.0),
        wide_tap=chosen.get("wide_tap", False),
    )  # fmt: skip
    report = load_weights(model, source, content=content)
    if not is_partial:
        fix = "give the flags it was trained with, or --partial-weights to take what fits"
        report.require(f"{chosen['backbone']} network", source, fix)
    if "epochs" not in config or report.faults():  # a training run's own checkpoint is whole, which needs no word
        say(f"weights {source}: {report}")
    warn_of_untrained(content.get("untrained", ()), source)
    if not classes:
        classes, palette = names if names and len(names[0]) == num_classes else names_and_colours(num_classes)
    else:
        palette = [tuple(entry) for entry in content.get("palette", voc_palette(num_classes))]
    model.to(memory_format=torch.channels_last)  # on a CPU 0.6 of the time, and less memory
    return Trained(model.eval(), tuple(classes), palette, config, source)


def warn_of_untrained(names: Sequence[str], source: str) -> None:
    """`names`: the entries that had no weights when `source` was converted, and are as they were initialised."""
    if names and is_main_process():
        print(
            f"note: {source}: its head was never trained ({len(names)} entries): "
            "what follows are no predictions of a trained network",
            file=sys.stderr,
        )


def agree(stored: Mapping, given: Mapping, source: str) -> dict:
    """Both together. Raises UserError where the command line says other than the weights."""
    for name, value in given.items():
        if name in stored and stored[name] != value:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {value} contradicts {source}, which has {stored[name]}: leave it out")
    return {**stored, **given}


def names_and_colours(num_classes: int) -> tuple[tuple[str, ...], Palette]:
    """VOC's for 21 classes, Cityscapes' for 19, else numbers in VOC's colours."""
    if num_classes == len(CITYSCAPES_CLASSES):
        return CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
    names = VOC_CLASSES if num_classes == len(VOC_CLASSES) else tuple(f"class {n}" for n in range(num_classes))
    return names, voc_palette(num_classes)
