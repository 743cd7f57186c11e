"""Imports point one way, as the design's table has it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "engine": {"utils", "errors"},
    "modeling": {"modeling", "utils", "errors"},
    "dataloaders": {"dataloaders", "utils", "mypath", "errors"},
    "utils": {"utils", "errors"},
    "mypath": {"errors"},
    "errors": set(),
}
OURS = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
OURS |= {"utils", "modeling", "dataloaders", "benchmarks", "tests"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            found.add(node.module.split(".")[0])
    return found & OURS


@pytest.mark.parametrize("unit", BELOW)
def test_a_unit_imports_only_what_lies_below(unit):
    files = list((ROOT / unit).rglob("*.py")) or [ROOT / f"{unit}.py"]
    for path in files:
        assert imports(path) <= BELOW[unit], path


def test_only_command_scripts_know_argparse():
    users = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts and "argparse" in path.read_text()}
    users -= {path.name for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("*.py")}
    commands = {"train.py", "evaluate.py", "predict.py", "cost.py", "weights.py", "check.py"}
    assert users == commands | {"build.py", "options.py", "scoring_options.py", "flags.py"}


def test_every_requirement_has_a_lower_bound():
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text().splitlines():
            assert ">=" in line, line
