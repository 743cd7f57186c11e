"""Imports point one way, without cycles; flags are read by commands alone; the root is small."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = {"train", "evaluate", "predict", "export", "hubconf"}
# What a unit imports of the others; the commands, config and the benchmarks import everything
BELOW = {
    "engine": {"utils"},
    "modeling": {"utils"},
    "dataloaders": {"utils", "mypath"},
    "utils": set(),
    "mypath": {"utils"},
}
# Commands in packages: one takes the defaults of train.py's flags, which are plain values, one runs training crops
OF_COMMANDS = {"dataloaders.show": {"config.recipes"}, "modeling.average": {"dataloaders"}}
UNITS = {*BELOW, *COMMANDS, "config"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


# The modules of the units: name -> file
MODULES = {
    module_name(path): path
    for unit in UNITS
    for path in ((ROOT / unit).rglob("*.py") if (ROOT / unit).is_dir() else [ROOT / f"{unit}.py"])
}


@cache
def imported(path: Path, *, at_start: bool = False) -> frozenset[str]:
    """The modules that a file imports; `at_start`: without those that its functions import."""
    tree = ast.parse(path.read_text())
    if at_start:
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            full_names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= full_names & set(MODULES) or {node.module}
    return frozenset(found)


def test_every_unit_is_in_the_table():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert (packages | scripts) - {"benchmarks", "tests"} == UNITS


@pytest.mark.parametrize("unit", BELOW)
def test_a_unit_imports_only_units_below(unit):
    for name, path in MODULES.items():
        if name.split(".")[0] == unit:
            others = imported(path) - OF_COMMANDS.get(name, set())
            units = {other.split(".")[0] for other in others} & (UNITS | {"benchmarks", "tests"})
            assert units <= BELOW[unit] | {unit}, path


def test_nothing_imports_these_commands():
    assert not set().union(*map(imported, MODULES.values())) & OF_COMMANDS.keys()
    assert imported(MODULES["config.recipes"]) & set(MODULES) == set()


def test_mypath_imports_only_the_errors():
    assert imported(ROOT / "mypath.py") & set(MODULES) <= {"utils.errors"}


def test_modules_do_not_import_each_other_in_a_cycle():
    """Raises graphlib.CycleError, which names the modules."""
    graph = {name: imported(path, at_start=True) & set(MODULES) for name, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())


def test_only_commands_and_flags_know_argparse():
    users = {str(path.relative_to(ROOT)) for path in MODULES.values() if "argparse" in imported(path)}
    commands = {f"{name}.py" for name in COMMANDS}
    commands |= {f"modeling/{name}.py" for name in ("average", "cost", "publish", "weights")} | {"utils/run/compare.py"}
    commands |= {f"dataloaders/{name}.py" for name in ("check", "prepare", "convert", "show")}
    assert {user for user in users - commands if not user.startswith("config/")} == {"utils/flags.py"}


def test_the_root_has_at_most_seven_modules():
    assert len(list(ROOT.glob("*.py"))) <= 7


def test_every_requirement_has_a_lower_bound():
    lines = [line for path in ROOT.glob("requirements*.txt") for line in path.read_text().splitlines()]
    assert lines and all(">=" in line for line in lines)
