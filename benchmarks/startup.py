"""Time in which each command answers --help and a mistake in its flags, and which part of `import torch` that is.

python -m benchmarks.startup
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from utils.flags import Parser, positive_int

ROOT = Path(__file__).parents[1]
MISTAKE = "--no-such-flag"
WITHOUT_FLAGS = {"benchmarks.killed_train"}  # benchmarks.kill_resume starts it
STARTS = ("train", "evaluate", "predict", "export")  # what these import before they work


def commands() -> list[str]:
    """The modules that are run by name and read flags."""
    paths = [*ROOT.glob("*.py"), *(path for init in ROOT.glob("*/__init__.py") for path in init.parent.rglob("*.py"))]
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if '\nif __name__ == "__main__":\n' in path.read_text()
    }
    return sorted(name for name in names - WITHOUT_FLAGS if not name.startswith("tests."))


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=commands(), default=commands(), help="default: all")
    parser.add_argument("--repeats", type=positive_int, default=5, help="default: 5")
    return parser


def seconds(*arguments: str) -> float:
    """From the start of Python to its end."""
    start = time.perf_counter()
    result = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 2 * (MISTAKE in arguments):
        raise RuntimeError(f"{' '.join(arguments)} ended with {result.returncode}: {result.stderr}")
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    imports = ["torch", *(name for name in STARTS if name in args.commands)]
    calls = {("import", name): ("-c", f"import {name}") for name in imports}
    calls |= {(flag, name): ("-m", name, flag) for name in args.commands for flag in ("--help", MISTAKE)}
    rounds = [{key: seconds(*call) for key, call in calls.items()} for _ in range(args.repeats)]
    median = {key: statistics.median(times[key] for times in rounds) for key in calls}
    base = median["import", "torch"]
    print(f"seconds and parts of `import torch`, medians of {args.repeats}")
    print(f"{'':<26} {'seconds':>8} {'part':>6}")
    for name in imports:
        print(f"{f'import {name}':<26} {median['import', name]:>8.2f} {median['import', name] / base:>6.2f}")
    print(f"{'':<26} {'--help':>8} {'part':>6} {'mistake':>8} {'part':>6}")
    for name in args.commands:
        cells = [f"{median[flag, name]:>8.2f} {median[flag, name] / base:>6.3f}" for flag in ("--help", MISTAKE)]
        print(f"{name:<26} {' '.join(cells)}")
    print(f"largest part {max(value for (kind, _), value in median.items() if kind != 'import') / base:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
