"""Lay runs side by side: the flags that differ, scores and curves.

python -m utils.run.compare run/demo/deeplab-mobilenet/experiment_*
python -m utils.run.compare RUN RUN --out comparison
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError, writing
from utils.flags import Parser, run_command
from utils.run.files import write_atomically
from utils.run.runs import Run, differences_of_data, differing_flags, names_of, open_run

Table = list[list[str]]  # rows of cells, the first one of titles


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m utils.run.compare", description="Lay runs side by side.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="the folder of a run, or a checkpoint in it")
    parser.add_argument("--out", metavar="DIR", help="write compare.html and curves.png there")
    args = parser.parse_args(argv)
    return run_command(lambda: compare(args))


def compare(args: argparse.Namespace) -> int:
    runs = list({run.path.resolve(): run for run in map(open_run, map(Path, args.runs))}.values())
    if len(runs) < 2:
        raise UserError(f"{runs[0].path} alone: give two runs or more")
    names = names_of(runs)
    tables = {"Scores": score_table(runs, names), "Flags that differ": flag_table(runs, names)}
    if classes := class_table(runs, names):
        tables["IoU of each class at the best mIoU, %"] = classes
    notes = differences_of_data(runs, names)
    for title, table in tables.items():
        print(f"{title}\n{as_text(table, shutil.get_terminal_size().columns)}\n")
    for note in notes:
        print(f"note: {note}")
    if args.out:
        write_page(Path(args.out), runs, names, tables, notes)
    return 0


def score_table(runs: list[Run], names: list[str]) -> Table:
    table = [["run", "epochs", "step", "best mIoU", "at epoch", "last mIoU", "val loss", "train loss"]]
    for run, name in zip(runs, names, strict=True):
        last, best = run.last or {}, run.best or {}
        scored = next((row for row in reversed(run.rows) if row.get("val_miou") is not None), {})
        numbers = [number(last.get("epoch")), number(last.get("step")), percent(best.get("val_miou"))]
        numbers += [number(best.get("epoch")), percent(scored.get("val_miou"))]
        losses = [number(scored.get("val_loss"), ".4f"), number(last.get("train_loss"), ".4f")]
        table.append([name, *numbers, *losses])
    return table


def flag_table(runs: list[Run], names: list[str]) -> Table:
    flags = differing_flags(runs)
    if not flags:
        return [["none"]]
    return [["flag", *names], *([key, *map(value_text, values)] for key, values in flags.items())]


def class_table(runs: list[Run], names: list[str]) -> Table:
    """IoU in percent of the classes that all runs name; empty without any."""
    best = [(run.best or {}).get("val_iou") or {} for run in runs]
    shared = [name for name in best[0] if all(name in each for each in best)]
    return [["class", *names], *([name, *(percent(each[name]) for each in best)] for name in shared)] if shared else []


def number(value: float | None, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def value_text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def as_text(table: Table, columns: int) -> str:
    """Aligned columns; a run a row instead of a column where the lines would be longer than `columns`."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if sum(widths) + 2 * len(widths) > columns and len(table[0]) > 2 and table[0][0] != "run":
        return "\n".join(
            f"{row[0]}\n" + "\n".join(f"  {name}: {cell}" for name, cell in zip(table[0][1:], row[1:], strict=True))
            for row in table[1:]
        )
    lines = []
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def write_page(out: Path, runs: list[Run], names: list[str], tables: dict[str, Table], notes: list[str]) -> None:
    """Write compare.html and curves.png into `out`. Raises UserError."""
    from utils.run.compare_page import render_page  # matplotlib is needed for it alone
    from utils.scoring.curves import plot_curves

    if any(run.path.resolve() == out.resolve() for run in runs):
        raise UserError(f"{out} is the folder of a run, which has a curves.png: give another `out`")
    curves = plot_curves({name: run.rows for name, run in zip(names, runs, strict=True)})
    with writing(out, "give another `out`"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "curves.png", curves)
        write_atomically(out / "compare.html", render_page(tables, notes, curves))
    print(f"{out / 'compare.html'}\n{out / 'curves.png'}")


if __name__ == "__main__":
    sys.exit(main())
