"""What the log of a run tells: curves, and the numbers of the headline."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from utils.run.log_rows import points_of
from utils.run.report.charts import Series, line_chart


def speeds(rows: Sequence[Mapping], batch_size: int | None) -> Iterator[tuple[float, float]]:
    """(step, images per second of training in that epoch)."""
    for before, row in itertools.pairwise([{"step": 0}, *rows]):
        if batch_size and row.get("seconds"):
            yield row["step"], (row["step"] - before["step"]) * batch_size / row["seconds"]


def curves(rows: Sequence[Mapping], batch_size: int | None) -> str:
    """Losses, mIoU, learning rate and speed over steps."""
    losses = [Series("training", points_of(rows, "train_loss")), Series("validation", points_of(rows, "val_loss"))]
    miou = [(step, 100 * value) for step, value in points_of(rows, "val_miou")]
    charts = [
        line_chart("Loss", [series for series in losses if series.points]),
        line_chart("mIoU, %", [Series("validation", miou)], form="{:.1f}".format),
        line_chart("Learning rate", [Series("backbone", points_of(rows, "lr"))], form="{:.2g}".format),
        line_chart("Images/s", [Series("training", list(speeds(rows, batch_size)))], form="{:.3g}".format),
    ]
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def previous_iou(rows: Sequence[Mapping]) -> Mapping:
    """{class: IoU} of the validation before the last one; empty if the log does not have it."""
    known = [row["val_iou"] for row in rows if row.get("val_iou")]
    return known[-2] if len(known) > 1 else {}


def duration(seconds: float) -> str:
    """In the two largest units: 3 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
