"""The scores of evaluate.py as text and as files."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from utils.errors import writing
from utils.palettes import Palette
from utils.scoring.metrics import percent, table, write_confusion, write_metrics
from utils.scoring.per_image import PerImage
from utils.scoring.plots import plot_confusion, plot_trimap
from utils.scoring.visualize import Example, grid


def print_scores(scores: dict, how: dict) -> None:
    """The table, the further scores, and `how` they were made: protocol, sizes, stride, scales."""
    print(table(scores))
    if trimap := scores.get("trimap"):
        print(f"trimap, {trimap['border']} borders:")
        print("".join(f"  {width:>4} px {percent(miou):>7}\n" for width, miou in trimap["miou"].items()), end="")
    if boundary := scores.get("boundary"):
        print(f"boundary IoU, {boundary['ratio']:g} of the diagonal: {percent(boundary['miou'])}")
    sizes = "".join(f", {name} {how[name][0]}x{how[name][1]}" for name in ("crop_size", "stride") if name in how)
    print(
        f"protocol {how['protocol']}{sizes.replace('_', ' ')}, stride {how['out_stride']}, "
        f"scales {' '.join(map(str, how['scales']))}{', flip' if how['flip'] else ''}, {how['pictures']} images"
    )


def write_results(
    folder: Path,
    scores: dict | None,
    how: dict,
    counts: Tensor,
    examples: Sequence[Example],
    *,
    classes: Sequence[str],
    palette: Palette,
    per_image: PerImage | None,
    ids: Sequence[str],
) -> None:
    """Write metrics.json, per_image.csv, confusion.csv, confusion.png, trimap.png and sheet.png, and print each path.

    Without `scores` (no labels) only sheet.png. Raises UserError where `folder` cannot be written.
    """
    files = {"sheet.png": grid(examples, classes, palette).save}
    if scores is not None:
        files = {
            "metrics.json": lambda path: write_metrics(path, scores, **how),
            "per_image.csv": lambda path: per_image.write(path, ids),
            "confusion.csv": lambda path: write_confusion(path, counts.numpy(), classes),
            "confusion.png": lambda path: plot_confusion(path, counts.numpy(), classes),
        } | files
        if trimap := scores.get("trimap"):
            files["trimap.png"] = lambda path: plot_trimap(path, **trimap, whole=scores["miou"])
    with writing(folder, "give another --out"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in files.items():
            write(folder / name)
            print(folder / name)
