"""Curves of one or several runs as a PNG."""

import io
from collections.abc import Mapping, Sequence

from utils.run.log_rows import points_of

DPI = 100


def plot_curves(runs: Mapping[str, Sequence[Mapping]], *, title: str = "") -> bytes:
    """PNG of loss, mIoU and learning rate over the steps of the `runs`: the rows of log.jsonl by name.

    Rows of older versions have no validation loss; what is missing is not drawn. The highest mIoU is marked.
    """
    # Takes half a second, which a run without validation need not wait
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    is_single = len(runs) == 1
    # A layout that is computed takes twice as long: in the plot of a run, which every validation draws, it is fixed
    layout = None if is_single else "constrained"
    figure = Figure(figsize=(12, 3.6 if is_single else 3.7 + 0.18 * len(runs)), layout=layout)
    figure.suptitle(title, size=11)
    loss, miou, lr = figure.subplots(1, 3)
    if is_single:
        figure.subplots_adjust(left=0.045, right=0.985, top=0.82, bottom=0.15, wspace=0.17)
    for number, rows in enumerate(runs.values()):
        color = f"C{number % 10}"
        draw(loss, rows, "train_loss", color=color, label="training")
        draw(loss, rows, "val_loss", color="C1" if is_single else color, style="--", label="validation")
        draw(miou, rows, "val_miou", color=color, factor=100)
        mark_best(miou, rows, color, text_height=-13 if number % 2 == 0 else 7)
        draw(lr, rows, "lr", color=color)
    for axes, text in (
        (loss, "loss" if is_single else "loss (dashed: validation)"),
        (miou, "val mIoU, %"),
        (lr, "learning rate"),
    ):
        axes.set(title=text, xlabel="step")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(alpha=0.3)
    if not is_single:  # names may be long: below the axes
        lines = [Line2D([], [], color=f"C{number % 10}", label=name) for number, name in enumerate(runs)]
        figure.legend(handles=lines, loc="outside lower left", fontsize=8, frameon=False)
    elif loss.lines:
        loss.legend(fontsize=8)
    lr.ticklabel_format(axis="y", scilimits=(-3, 3))
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()


def draw(axes, rows: Sequence[Mapping], key: str, *, color: str, label: str = "", style: str = "-", factor: float = 1):
    """A line through the rows that have a number for `key`; a point for each of the first few."""
    points = points_of(rows, key)
    if points:
        marker = "." if len(points) <= 60 else ""
        steps, values = zip(*points, strict=True)
        values = [factor * value for value in values]
        axes.plot(steps, values, style, marker=marker, color=color, label=label or "_", linewidth=1.3)


def mark_best(axes, rows: Sequence[Mapping], color: str, *, text_height: int) -> None:
    """A circle at the highest mIoU, with its number so many points above it: two runs may end at one place."""
    if points := points_of(rows, "val_miou"):
        step, value = max(points, key=lambda point: point[1])
        axes.plot([step], [100 * value], "o", color=color, markersize=6, markerfacecolor="none")
        axes.annotate(
            f"{100 * value:.1f}", (step, 100 * value), textcoords="offset points", xytext=(0, text_height),
            ha="center", size=8, color=color,
        )  # fmt: skip
