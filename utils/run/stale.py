"""Result files of an earlier call in the same folder: removed if nobody has changed them since, else named."""

import json
from collections.abc import Iterable
from pathlib import Path

from utils.errors import UserError
from utils.run.files import write_atomically

MANIFEST = ".evaluate.json"  # {name: [size, time of change]} of what the last call wrote


def require_no_run(folder: Path) -> None:
    """Raise UserError if `folder` is that of a training run, which has results of the same names."""
    if (folder / "config.json").is_file() and (folder / "log.jsonl").is_file():
        raise UserError(f"{folder} is the folder of a training run, whose scores would be replaced: give another `out`")


def remove_stale(folder: Path, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Remove the files of the last call that are not in `names`, which this call writes. Returns those left.

    A file is removed if the manifest has it and its size and time are as written. `known`: names of files that any
    call may write; such a file is left if it is not certain that a call wrote it. Raises OSError.
    """
    written = read_manifest(folder)
    others = {*written, *known} - {*names}
    for name in written.keys() & others:
        if state(folder / name) == written[name]:
            (folder / name).unlink()
    return sorted(name for name in others if (folder / name).is_file())


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Raises OSError."""
    content = {name: state(folder / name) for name in names}
    write_atomically(folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, list[int]]:
    """Empty if there is none, or a damaged one. Names with folders are left out: none is written."""
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: entry for name, entry in content.items() if Path(name).name == name and name != MANIFEST}


def state(path: Path) -> list[int] | None:
    """[size, time of change]; None if there is no such file. A link counts itself, not what it leads to."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
