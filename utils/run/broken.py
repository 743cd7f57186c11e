"""The images that --skip-broken leaves out because they cannot be decoded, and how often."""

import json
from collections.abc import Sequence

# A sample names the files left out for it in one string: default_collate rejects lists of different lengths
SEPARATOR = "\n"


class BrokenFiles:
    """`times`: path -> how often the file was left out, over the whole run and all its processes."""

    def __init__(self, times: dict[str, int] | None = None):
        self.times = dict(times or {})

    def add(self, paths: Sequence[str]) -> list[str]:
        """Count `paths`. Returns those counted for the first time."""
        new = [path for path in dict.fromkeys(paths) if path not in self.times]
        for path in paths:
            self.times[path] = self.times.get(path, 0) + 1
        return new

    def __str__(self) -> str:
        return f"{len(self.times)} broken files were left out, {sum(self.times.values())} times in all"

    def render(self) -> bytes:
        """The content of `broken.json`: `files`, their number, and `times`, how often each was left out."""
        return (json.dumps({"files": len(self.times), "times": self.times}, indent=2) + "\n").encode()


def broken_files(batches: Sequence[dict]) -> list[str]:
    """The files that were left out of these batches."""
    entries = (entry for batch in batches for entry in batch.get("broken", ()))
    return [path for entry in entries for path in entry.split(SEPARATOR) if path]
