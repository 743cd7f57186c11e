"""The scores of evaluate.py as text and as files."""

from collections.abc import Sequence
from pathlib import Path

from utils.errors import writing
from utils.run.files import write_atomically
from utils.run.report.content import Report
from utils.run.report.page import render_report
from utils.run.stale import remove_stale, write_manifest
from utils.scoring.gallery import NUM_SHEET_ROWS, Gallery, evenly_spaced
from utils.scoring.metrics import percent, table, write_confusion, write_metrics
from utils.scoring.sheet import grid

# What a call may write
RESULT_FILES = (
    "metrics.json",
    "per_image.csv",
    "confusion.csv",
    "confusion.png",
    "sheet.png",
    "trimap.png",
    "report.html",
)


def print_scores(scores: dict, settings: dict) -> None:
    """Print the table, the scores near borders, and the `settings` they depend on: protocol, strides, scales."""
    print(table(scores))
    if trimap := scores.get("trimap"):
        print(f"trimap, {trimap['border']} borders:")
        for width, miou in trimap["miou"].items():
            print(f"  {width:>4} px {percent(miou):>7}")
    if boundary := scores.get("boundary"):
        print(f"boundary IoU, {boundary['ratio']:g} of the diagonal: {percent(boundary['miou'])}")
    parts = [f"protocol {settings['protocol']}"]
    for name, key in (("crop size", "crop_size"), ("stride", "stride")):
        if key in settings:
            parts.append(f"{name} {settings[key][0]}x{settings[key][1]}")
    parts += [f"output stride {settings['out_stride']}", f"scales {' '.join(map(str, settings['scales']))}"]
    if settings["flip"]:
        parts.append("flip")
    print(", ".join([*parts, f"{settings['pictures']} images"]))


def write_results(out: Path, report: Report, gallery: Gallery, *, ids: Sequence[str]) -> None:
    """Write metrics.json, per_image.csv, confusion.csv, confusion.png, sheet.png, report.html and, if scored,
    trimap.png into `out`.

    `ids` in the order of per_image.csv. Without scores (no labels) only sheet.png and report.html are written. Prints
    each path. Files that an earlier call wrote into `out` and this one does not are removed if they are as it left
    them, else named. Raises UserError if `out` cannot be written.
    """
    from utils.scoring.plots import plot_confusion, plot_trimap  # Matplotlib, for a score with --out alone

    classes, scores, counts = report.classes, report.scores, report.counts
    files = {
        "sheet.png": grid(evenly_spaced(report.spread, NUM_SHEET_ROWS), classes, report.palette).save,
        "report.html": lambda path: write_atomically(path, render_report(report)),
    }
    if scores is not None:
        files = {
            "metrics.json": lambda path: write_metrics(path, scores, **report.settings),
            "per_image.csv": lambda path: gallery.write(path, ids),
            "confusion.csv": lambda path: write_confusion(path, counts, classes),
            "confusion.png": lambda path: plot_confusion(path, counts, classes),
        } | files
        if trimap := scores.get("trimap"):
            files["trimap.png"] = lambda path: plot_trimap(path, **trimap, whole_miou=scores["miou"])
    with writing(out, "give another `out`"):
        out.mkdir(parents=True, exist_ok=True)
        left = remove_stale(out, files, RESULT_FILES)
        for name, write in files.items():
            write(out / name)
            print(out / name)
        write_manifest(out, files)
    if left:
        print(f"note: not of this call: {', '.join(str(out / name) for name in left)}")
