"""What the rows of a log.jsonl say; rows of older versions lack some entries."""

from collections.abc import Mapping, Sequence


def points_of(rows: Sequence[Mapping], key: str) -> list[tuple[int, float]]:
    """(step, value) of the rows that have the value."""
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None and "step" in row]


def best_row(rows: Sequence[Mapping]) -> Mapping | None:
    """The first of the rows with the highest mIoU."""
    scored = [row for row in rows if row.get("val_miou") is not None]
    return max(scored, key=lambda row: row["val_miou"], default=None)
