"""Images that could not be decoded and were left out: which, and how often. For --skip-broken."""

import json
from collections.abc import Sequence

SEPARATOR = "\n"  # a sample names the files it was to have been of in one string, which batches well


class BrokenFiles:
    """How often each file was left out, over the whole run and all its processes."""

    def __init__(self, times: dict[str, int] | None = None):
        self.times = dict(times or {})

    def add(self, paths: Sequence[str]) -> list[str]:
        """Count `paths`. Returns those that are new."""
        new = [path for path in dict.fromkeys(paths) if path not in self.times]
        for path in paths:
            self.times[path] = self.times.get(path, 0) + 1
        return new

    def __str__(self) -> str:
        return f"{len(self.times)} broken files were left out, {sum(self.times.values())} times in all"

    def render(self) -> bytes:
        """`files`, how many there are; `times`, how often each was left out."""
        return (json.dumps({"files": len(self.times), "times": self.times}, indent=2) + "\n").encode()


def broken_files(parts: Sequence[dict]) -> list[str]:
    """The files that the samples of these batches were to have been of."""
    entries = (entry for part in parts for entry in part.get("broken", ()))
    return [path for entry in entries for path in entry.split(SEPARATOR) if path]
