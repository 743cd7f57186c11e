"""Results that take long, kept outside the data folders and computed once, however many processes ask."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from utils.distributed import print_main
from utils.errors import UserError, writing
from utils.run.files import write_atomically


def cache_folder() -> Path:
    """DEEPLAB_CACHE, else `deeplab` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DEEPLAB_CACHE") or Path(home) / "deeplab")


def cached(name: str, compute: Callable[[], object]) -> object:
    """The JSON value stored under `name`, else what `compute` gives, stored for the next time.

    `name` must hold a digest of all that the value depends on. A second process waits for the first one's result.
    """
    path = cache_folder() / f"{name}.json"
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(path, fix="set DEEPLAB_CACHE to another folder"))
        except UserError as error:
            print_main(f"note: {error}; until then what takes long is computed at each start")
            return json.loads(json.dumps(compute()))
        if path.is_file():
            return json.loads(path.read_text())
        text = json.dumps(compute())
        try:
            write_atomically(path, text.encode())
        except OSError as error:
            print_main(f"note: {path} cannot be written ({error.strerror}): it is computed again next time")
        return json.loads(text)


@contextlib.contextmanager
def locked(path: Path, *, fix: str) -> Iterator[None]:
    """One process at a time in the block, by a lock file beside `path`, whose folder is made.

    Raises UserError with `fix` where that folder cannot be written.
    """
    with writing(path.parent, fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f"{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
