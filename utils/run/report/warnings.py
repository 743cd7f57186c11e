"""What a reader of the scores should know first."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from utils.run.report.content import Report, escape

SPIKE = 1.5  # times the loss of the epoch before
MAX_NAMES = 12


def warnings(report: Report) -> str:
    """A list; empty if there is nothing to warn of."""
    found = [*loss_spikes(report.rows)]
    if report.scores is not None:
        found = [*class_warnings(report), *found]
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def class_warnings(report: Report) -> Iterator[str]:
    labeled, predicted = report.counts.sum(1), report.counts.sum(0)
    if absent := [name for name, pixels in zip(report.classes, labeled, strict=True) if not pixels]:
        yield f"Never in the validation labels: {names(absent)}."
    rows = zip(report.classes, labeled, predicted, strict=True)
    if missed := [name for name, pixels, hits in rows if pixels and not hits]:
        yield f"In the labels, but never predicted: {names(missed)}."


def loss_spikes(rows: Sequence[Mapping]) -> Iterator[str]:
    """Epochs whose loss is far above that of the epoch before."""
    for key, name in (("train_loss", "training"), ("val_loss", "validation")):
        known = [row for row in rows if row.get(key) is not None]
        for before, row in itertools.pairwise(known):
            if row[key] > SPIKE * before[key] > 0:
                yield (
                    f"The {name} loss rose from {before[key]:.3g} (epoch {before['epoch']}) to {row[key]:.3g} "
                    f"(epoch {row['epoch']})."
                )


def names(found: Sequence[str]) -> str:
    """The first MAX_NAMES, and how many more there are."""
    more = f" and {len(found) - MAX_NAMES} more" if len(found) > MAX_NAMES else ""
    return ", ".join(found[:MAX_NAMES]) + more
