"""The scores of each class: bars of IoU, and the confusion matrix."""

import json
from collections.abc import Mapping

import numpy as np

from utils.run.report.content import Report, escape, percentage, swatch, table

NUM_CONFUSIONS = 12


def bars(report: Report, before: Mapping) -> str:
    """IoU of each class, the highest first, with the change since the IoU (0..1 or None) of `before`."""
    scored = [(name, row["iou"]) for name, row in report.scores["per_class"].items()]
    colors = dict(zip(report.classes, report.palette, strict=False))
    scored.sort(key=lambda item: -1 if item[1] is None else item[1], reverse=True)
    items = "".join(bar(name, iou, before.get(name), colors.get(name, (128, 128, 128))) for name, iou in scored)
    note = "<p>The small mark and the last column: the validation before.</p>" if before else ""
    return f'{note}<ol class="bars" tabindex="0" aria-label="IoU of each class, in percent">{items}</ol>'


def bar(name: str, iou: float | None, before: float | None, rgb: tuple) -> str:
    mark = "" if before is None else f'<b class="before" style="left:{100 * before:.2f}%"></b>'
    change, direction = "", ""
    if iou is not None and before is not None:
        change, direction = f"{100 * (iou - before):+.1f}", "up" if iou > before else "down" if iou < before else ""
    return (
        f'<li><span class="name" title="{escape(name)}">{swatch(rgb)}{escape(name)}</span>'
        f'<span class="track"><b class="bar" style="width:{100 * (iou or 0):.2f}%"></b>{mark}</span>'
        f'<span class="number">{percentage(iou)}</span><span class="number change {direction}">{change}</span></li>'
    )


def confusion(report: Report) -> str:
    """The matrix, which the script draws from its counts, and the most frequent confusions as a table."""
    data = json.dumps({"classes": list(report.classes), "counts": report.counts.tolist()}, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # a class name must not end the script
    return (
        "<p>Rows: true class; columns: predicted class. Blue is right, red is wrong; numbers are percent of the true "
        "class. Point at a cell, tap it or use the arrow keys to read it.</p>"
        '<div class="wide matrix"><canvas id="matrix" tabindex="0" role="img" aria-describedby="cell" '
        'aria-label="Confusion matrix; arrow keys move the selected cell"></canvas></div>'
        '<output id="cell" aria-live="polite">&nbsp;</output>'
        f'<script type="application/json" id="counts">{data}</script>'
        f"<details open><summary>Most frequent confusions</summary>{confusions(report)}</details>"
    )


def confusions(report: Report) -> str:
    """The pairs of different classes with the most pixels."""
    wrong = report.counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
    rows = []
    for truth, prediction in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if pixels := int(wrong[truth, prediction]):
            share = percentage(pixels / report.counts[truth].sum())
            rows.append((report.classes[truth], report.classes[prediction], share, f"{pixels:,}"))
    header = ("truth", "predicted", "% of truth", "pixels")
    return table(header, rows, label="Most frequent confusions", first_is_text=2)
