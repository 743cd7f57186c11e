"""Curves, matrices and histograms as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    counts = np.array([*images, 0])
    num_columns = -(-len(names) // MAX_BARS)
    num_rows = -(-len(names) // num_columns)
    figure = Figure(figsize=(max(9, 6 * num_columns), 1.2 + 0.2 * max(4, num_rows)), layout="constrained")
    figure.suptitle(title)
    for column, (left, right) in enumerate(figure.subplots(1, 2 * num_columns).reshape(num_columns, 2)):
        part = slice(column * num_rows, (column + 1) * num_rows)
        plot_bars(left, shares[part], colors[part], [percent(share) for share in shares[part]], num_rows=num_rows)
        name_bars(left, names[part], pixels[part])
        scale_shares(left, shares)
        plot_bars(right, counts[part], colors[part], [f"{count:,}" for count in counts[part]], num_rows=num_rows)
        right.set(xlim=(0, 1.3 * max(1, *images)), xlabel=f"images, of {num_images:,}", yticks=[])
        right.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.savefig(path, dpi=DPI)


def plot_bars(axes: Axes, values: Sequence[float], colors: Sequence, texts: Sequence[str], *, num_rows: int) -> None:
    """A horizontal bar with its text for each value above 0, the first one at the top of `num_rows`."""
    bars = axes.barh(range(len(values)), values, color=colors, edgecolor="0.5", linewidth=0.6)
    axes.bar_label(bars, [text if value else "" for text, value in zip(texts, values, strict=True)], padding=3, size=7)
    axes.set_ylim(num_rows - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)


def name_bars(axes: Axes, names: Sequence[str], pixels: Sequence[int]) -> None:
    """Name the bars; those of classes without pixels in red. The ignored pixels may follow the last class."""
    axes.set_yticks(range(len(names)), labels=names)
    for row, (label, count) in enumerate(zip(axes.get_yticklabels(), pixels, strict=False)):
        if not count:
            label.set_color("red")
            place = {"va": "center", "transform": axes.get_yaxis_transform()}  # x: share of the width
            axes.text(0.02, row, "does not occur", color="red", size=7, **place)


def scale_shares(axes: Axes, shares: np.ndarray) -> None:
    """A logarithmic axis from below the smallest of all `shares` (percent) to the text beside 100, with few ticks."""
    first = int(np.floor(np.log10(min(shares[shares > 0], default=1))))
    powers = range(2, first - 1, -max(1, (5 - first) // 4))
    axes.set(xscale="log", xlim=(10.0**first / 2, 10.0 ** (2 + (2 - first) / 5 + 0.2)), xlabel="share of all pixels, %")
    axes.set_xticks([10.0**power for power in powers], labels=[f"{10.0**power:g}" for power in powers])
    axes.minorticks_off()


def percent(share: float) -> str:
    return f"{share:.2g}%" if share >= 0.001 else "<0.001%"
