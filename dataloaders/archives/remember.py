"""Remembers where the datasets lie. mypath.py reads it."""

import json
from collections.abc import Mapping
from pathlib import Path

from mypath import Path as Roots
from mypath import remembered_roots, roots_file
from utils.cache import locked
from utils.errors import writing
from utils.progress import print_above_bar
from utils.run.files import write_atomically

FIX = "set XDG_CONFIG_HOME to another folder, or give the folders by --data-root DIR"


def remember(roots: Mapping[str, Path]) -> None:
    """Store the root folders by the name of their dataset, beside the stored ones, and print what will be used.

    `folder` is one name for all of a user's own data: another folder that is stored for it stays.
    """
    path = Path(roots_file())
    with locked(path, fix=FIX), writing(path, FIX):
        known = remembered_roots()
        new = {name: str(root) for name, root in roots.items() if name != "folder" or name not in known}
        write_atomically(path, (json.dumps(known | new, indent=2) + "\n").encode())
    print_above_bar(f"remembered in {path}; mypath.py, DEEPLAB_<DATASET>_ROOT and --data-root win over it:")
    for name, root in roots.items():
        used = Roots.db_root_dir(name)
        print_above_bar(f"  {name}: {root}" if used == str(root) else f"  {name}: not {root}, as {used} is set")


def earlier_root(targets: Mapping[str, str]) -> Path | None:
    """The folder below which all `targets` (name -> folder) lie already, as remembered; None if there is none."""
    known = remembered_roots()
    found = {
        Path(known[name].removesuffix(f"/{target}"))
        for name, target in targets.items()
        if known.get(name, "").endswith(f"/{target}") and Path(known[name]).is_dir()
    }
    return found.pop() if len(found) == 1 else None
