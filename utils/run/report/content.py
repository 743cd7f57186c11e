"""What the page shows, as plain data, and the small pieces of HTML that all sections share."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from utils.palettes import Palette
from utils.scoring.visualize import Example


@dataclass(frozen=True, kw_only=True)
class Report:
    """A run after a validation, or a score.

    `scores`: those of `score_counts`, None without labels; `settings`: what they depend on (`protocol`, `out_stride`,
    ...). `counts` int [K, K]: pixels, `counts[truth, prediction]`. `image_scores`: id -> (mIoU, accuracy, pixels).
    `rows`: the objects of log.jsonl, also of older versions, in their order; none for a score. `changed`: the names in
    `config` that differ from the defaults.
    """

    title: str
    subtitle: str
    classes: Sequence[str]
    palette: Palette
    scores: Mapping | None
    settings: Mapping
    counts: np.ndarray
    config: Mapping
    machine: Mapping
    changed: Sequence[str] = ()
    spread: Sequence[Example] = ()
    worst: Sequence[Example] = ()
    image_scores: Mapping[str, tuple] = field(default_factory=dict)
    rows: Sequence[Mapping] = ()
    commands: Sequence[str] = ()


def escape(value: object) -> str:
    """Text for HTML, also within an attribute in double quotes."""
    return html.escape(str(value))


def section(key: str, title: str, body: str) -> str:
    """A section with the anchor `key`; nothing for an empty body."""
    return f'<section id="{key}"><h2>{escape(title)}</h2>{body}</section>' if body else ""


def percentage(value: float | None, digits: int = 1) -> str:
    """0..1 in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}"  # noqa: RUF001 (an en dash stands for no value)


def color(rgb: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def swatch(rgb: Sequence[int]) -> str:
    return f'<i class="swatch" style="background:{color(rgb)}"></i>'


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, label: str, first_is_text: int = 1) -> str:
    """Plain values; the columns after the first `first_is_text` are numbers."""

    def cells(row: Sequence[object], tag: str) -> str:
        kinds = ["" if number < first_is_text else ' class="number"' for number in range(len(row))]
        return "".join(f"<{tag}{kind}>{escape(value)}</{tag}>" for kind, value in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}"><table><thead><tr>'
        f"{cells(header, 'th')}</tr></thead><tbody>{body}</tbody></table></div>"
    )
