"""Curves, matrices and histograms as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.palettes import Palette

DPI = 120
MAX_BARS = 60  # in a column of a class histogram
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


def plot_classes(
    path: Path, pixels: Sequence[int], images: Sequence[int], *,
    ignored: int, num_images: int, classes: Sequence[str], palette: Palette, title: str,
) -> None:  # fmt: skip
    """Plot the share of all pixels (logarithmic) and the number of images of each class, by class number.

    Below them stands the share of the `ignored` pixels. Classes that do not occur are red.
    """
    names = [*(f"{name}  {number}" for number, name in enumerate(classes)), "ignored  255"]
    colors = [*(np.array(color) / 255 for color in palette), "white"]
    shares = 100 * np.array([*pixels, ignored]) / max(1, sum(pixels) + ignored)
    decades = [10.0**power for power in range(int(np.floor(np.log10(min(shares[shares > 0], default=1)))), 3)]
    num_columns = -(-len(names) // MAX_BARS)
    num_rows = -(-len(names) // num_columns)
    figure = Figure(figsize=(max(9, 6 * num_columns), 1.2 + 0.2 * max(4, num_rows)), layout="constrained")
    figure.suptitle(title)
    pairs = figure.subplots(1, 2 * num_columns, squeeze=False).reshape(num_columns, 2)
    for column, (left, right) in enumerate(pairs):
        part = slice(column * num_rows, (column + 1) * num_rows)
        plot_bars(left, shares[part], colors[part], [f"{share:.2g}%" for share in shares[part]], rows=num_rows)
        left.set(xscale="log", xlim=(decades[0] / 2, 500), xlabel="share of all pixels, %")
        left.set_xticks(decades, labels=[f"{decade:g}" for decade in decades])
        left.set_yticks(range(len(names[part])), labels=names[part], size=8)
        counts = np.array([*images, 0])[part]
        plot_bars(right, counts, colors[part], [f"{count:,}" for count in counts], rows=num_rows)
        right.set(xlim=(0, 1.15 * max(1, *images)), xlabel=f"images with the class, of {num_images:,}", yticks=[])
        mark_absent(left, pixels[part])
    figure.savefig(path, dpi=DPI)


def plot_bars(axes: Axes, values: Sequence[float], colors: Sequence, texts: Sequence[str], *, rows: int) -> None:
    """A horizontal bar with its text for each value that is not 0, the first one at the top of `rows`."""
    bars = axes.barh(range(len(values)), values, color=colors, edgecolor="0.5", linewidth=0.6)
    axes.bar_label(bars, [text if value else "" for text, value in zip(texts, values, strict=True)], padding=3, size=7)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def mark_absent(axes: Axes, pixels: Sequence[int]) -> None:
    """Make the names of classes without pixels red."""
    for name, count in zip(axes.get_yticklabels(), pixels, strict=False):
        if not count:
            name.set_color("red")
            position = (0.01, name.get_position()[1])
            axes.text(
                *position, "does not occur", color="red", size=7, va="center", transform=axes.get_yaxis_transform()
            )
