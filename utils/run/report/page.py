"""The whole page."""

from collections.abc import Mapping
from pathlib import Path

from utils.flags import flag
from utils.run.folder import FACTS
from utils.run.log_rows import best_row
from utils.run.report.classes import bars, confusion
from utils.run.report.content import Report, escape, percentage, section, table
from utils.run.report.curves import curves, duration, previous_iou
from utils.run.report.samples import samples
from utils.run.report.warnings import warnings

FOLDER = Path(__file__).parent
# The page loads nothing, whatever the names in it contain
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render_report(report: Report) -> bytes:
    """The content of report.html."""
    has_scores = report.scores is not None
    sections = [
        ("warnings", "Warnings", warnings(report)),
        ("curves", "Curves over steps", curves(report.rows, report.config.get("batch_size"))),
        ("classes", "IoU of each class, %", bars(report, previous_iou(report.rows)) if has_scores else ""),
        ("confusion", "Confusion matrix", confusion(report) if has_scores else ""),
        ("samples", "Images", samples(report)),
        ("configuration", "Configuration", configuration(report)),
        ("machine", "Machine", values_table(report.machine, label="Machine")),
    ]
    links = "".join(f'<a href="#{key}">{title.split(",")[0]}</a>' for key, title, body in sections if body)
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(report.title)}</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(report.title)}</h1><p class="subtitle">{escape(report.subtitle)}</p>'
        f'<dl class="tiles">{headline(report)}</dl><nav aria-label="Sections">{links}</nav></header>'
        f"<main>{''.join(section(*each) for each in sections)}</main><script>{script}</script></body></html>\n"
    ).encode()


def headline(report: Report) -> str:
    """The numbers that a reader looks for first."""
    tiles = []
    best = best_row(report.rows)
    if best:
        tiles.append(("best mIoU", f"{percentage(best['val_miou'])} %", f"epoch {best['epoch']}"))
    if report.scores is not None:
        name = "last mIoU" if best else "mIoU"
        tiles.append((name, f"{percentage(report.scores['miou'])} %", f"protocol {report.settings.get('protocol')}"))
        tiles.append(("pixel accuracy", f"{percentage(report.scores['pixel_accuracy'])} %", ""))
    if report.rows:
        last, epochs = report.rows[-1], report.config.get("epochs")
        seconds = sum(row.get("seconds") or 0 for row in report.rows)
        tiles.append(("epoch", f"{last['epoch']}" + (f" of {epochs}" if epochs else ""), f"step {last['step']:,}"))
        tiles.append(("training time", duration(seconds), "without validation"))
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )


def configuration(report: Report) -> str:
    """The commands, the flags that differ from the defaults, then all flags and what the scores depend on."""
    flags = {name: value for name, value in report.config.items() if name not in FACTS}
    commands = "".join(f"<pre>{escape(command)}</pre>" for command in report.commands)
    parts = [f"<h3>{'Command' if len(report.commands) == 1 else 'Commands'}</h3>{commands}" if commands else ""]
    parts.append(f"<h3>Score</h3>{values_table(report.settings, label='What the score depends on')}")
    if changed := {flag(name): flags[name] for name in report.changed if name in flags}:
        parts.append(f"<h3>Flags that differ from the defaults</h3>{values_table(changed, label='Changed flags')}")
    if flags:
        everything = values_table({flag(name): value for name, value in flags.items()}, label="All flags")
        whose = "All flags" if report.rows else "Flags of the training"
        parts.append(f"<details><summary>{whose}</summary>{everything}</details>")
    return "".join(parts)


def values_table(values: Mapping, *, label: str) -> str:
    rows = [(name, plain(value)) for name, value in values.items()]
    return table(("name", "value"), rows, label=label, first_is_text=2) if rows else ""


def plain(value: object) -> str:
    """A value as one would type or say it."""
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return str(value)
