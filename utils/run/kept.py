"""`--keep N`: the last N checkpoints of a run stay, as `checkpoint_step_000123.pth.tar` beside the latest."""

import contextlib
import os
import re
import shutil
from pathlib import Path

from utils.run.files import sync_folder, write_atomically

NAME = re.compile(r"checkpoint_step_(\d+)\.pth\.tar")


def kept_checkpoints(folder: Path) -> dict[int, Path]:
    """{step: file} of the kept checkpoints in `folder`, by step."""
    found = ((NAME.fullmatch(path.name), path) for path in folder.glob("checkpoint_step_*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def keep(checkpoint: Path, step: int, number: int) -> None:
    """Keep the complete `checkpoint` of `step`, and then remove all but the last `number`. Raises OSError.

    Those of later steps go too: the run was resumed before them, and is on another way since.
    """
    link(checkpoint, checkpoint.with_name(f"checkpoint_step_{step:06d}.pth.tar"))
    kept = kept_checkpoints(checkpoint.parent)
    last = [each for each in kept if each <= step][-number:]
    for each in kept.keys() - set(last):
        kept[each].unlink(missing_ok=True)


def link(source: Path, target: Path) -> None:
    """Let `target` be the file `source` under another name, or a copy where the file system has no hard links."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.link(source, part)
    except OSError:
        with open(source, "rb") as file:
            write_atomically(target, lambda copy: shutil.copyfileobj(file, copy, 1 << 20))
        return
    try:
        os.replace(part, target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):  # a rename between two names of one file does nothing
            part.unlink()
