"""A Markdown report whose rows are measured while it is printed, within a time limit. For benchmarks.gpu."""

import gc
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

ROOT = Path(__file__).parents[1]
FIRST = {"eager": 30.0, "compiled": 150.0}  # kind of a row -> assumed seconds of the first one
TESTS = ["-m", "cuda", "tests/test_cuda.py"]
Result = TypeVar("Result")


class Report:
    """Prints tables row by row. `skipped` and `failed` name the rows without a result.

    A row starts only if it would end in time if it took as long as the longest one so far of its kind.
    """

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes
        self.seconds: dict[str, list[float]] = {kind: [] for kind in FIRST}
        self.title = ""  # of the current table
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def line(self, text: str = "") -> None:
        print(text, flush=True)

    def table(self, title: str, columns: Sequence[str]) -> None:
        self.title = title
        self.line(f"\n## {title}\n")
        self.line(f"| {' | '.join(columns)} |")
        self.line("|---" * len(columns) + "|")

    def items(self, title: str, items: Sequence[str]) -> None:
        self.line(f"\n## {title}\n")
        self.line("\n".join(f"- {item}" for item in items or ["none"]))

    def row(
        self,
        name: Sequence[str],
        work: Callable[[], Result],
        show: Callable[[Result], Sequence[str]],
        *,
        kind: str = "eager",
    ) -> Result | None:
        """Print the cells `name` and `show(work())`, and return `work()`. None if it was skipped or failed."""
        start, result, title = time.monotonic(), None, f"{self.title}: {', '.join(name)}"
        if start + max(self.seconds[kind], default=FIRST[kind]) > self.end:
            self.skipped.append(title)
            return None
        try:
            result = work()
            cells = show(result)
        except torch.OutOfMemoryError:
            cells = ["out of memory"]
        except Exception as error:  # of any library: the other rows are still worth their time
            traceback.print_exc()
            cells = [f"failed: {type(error).__name__}"]
            self.failed.append(title)
        free_memory()
        self.seconds[kind].append(time.monotonic() - start)
        self.line(f"| {' | '.join([*name, *cells])} |")
        return result

    def tests(self) -> None:
        """Run the tests that need a GPU, in at most a third of the time that is left."""
        seconds, command = (self.end - time.monotonic()) / 3, [sys.executable, "-m", "pytest", "-q", *TESTS]
        try:
            process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            is_passed, output = False, f"not finished after {seconds:.0f} s"
        else:
            is_passed, output = process.returncode == 0, (process.stdout.strip() or process.stderr.strip())
        self.line(f"\n## Tests\n\n`pytest {' '.join(TESTS)}`: {output.splitlines()[-1]}")
        if not is_passed:
            self.failed.append("tests")
            self.line(f"\n```\n{output}\n```")


def free_memory() -> None:
    """Of the last row: nothing of it may count in the next one."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
