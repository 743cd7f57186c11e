"""Curves and matrices as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

DPI = 120
MAX_NUMBERED = 40  # classes of a confusion matrix with numbers in its cells


def plot_trimap(path: Path, miou: Mapping[str, float | None], *, border: str, whole_miou: float | None) -> None:
    """Plot mIoU (0..1) against the width of the band in pixels; `whole_miou`, of whole images, is a dashed line."""
    points = [(int(width), 100 * value) for width, value in miou.items() if value is not None]
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*points, strict=True) if points else ([], []), "o-", color="C0", label="within the band")
    if whole_miou is not None:
        axes.axhline(100 * whole_miou, color="0.5", linestyle="--", label="whole images")
    axes.set_xscale("log", base=2)
    axes.set_xticks([int(width) for width in miou], labels=list(miou))
    axes.minorticks_off()
    axes.set_xlabel(f"width of the band around {'void' if border == 'void' else 'class'} borders, in pixels")
    axes.set_ylabel("mIoU, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=DPI)


def plot_confusion(path: Path, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Plot `counts[truth, prediction]` in percent of each true class; with numbers in the cells up to MAX_NUMBERED."""
    totals = counts.sum(1, keepdims=True)
    percentages = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    has_numbers = len(classes) <= MAX_NUMBERED
    cell, font_size = (0.36, 10) if has_numbers else (0.13, 7)  # inches, points: the names just fit
    side = max(4, 1.8 + cell * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(title="% of the true class")
    axes.imshow(percentages, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(classes)), labels=classes, rotation=90, size=font_size)
    axes.set_yticks(range(len(classes)), labels=classes, size=font_size)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if has_numbers:
        for (row, column), value in np.ndenumerate(percentages):
            if value >= 0.5:
                color = "white" if value > 55 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", size=7, color=color)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")  # long class names would leave an empty strip beside the square
