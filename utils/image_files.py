"""Find image files: in folders, by pattern, and what is left out of a folder and why."""

import glob
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from utils.errors import UserError

# What Pillow identifies but cannot decode alone, and drawings
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
HEIF_ENDINGS = (".heic", ".heif", ".hif")
VIDEO_ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
FOLDER, HIDDEN, NO_ENDING = "folder", "hidden file", "extensionless file"
# What labels them; predict.py has the flags
HEIF_HINTS = dict.fromkeys(HEIF_ENDINGS, "pip install pillow-heif")
FLAG_HINTS = HEIF_HINTS | {FOLDER: "--recursive"} | dict.fromkeys(VIDEO_ENDINGS, "--video")


def image_endings() -> set[str]:
    """The endings of the formats that Pillow decodes here, in lower case; HEIC's with pillow-heif."""
    Image.init()
    known = {end for end, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - NOT_DECODED}
    has_heif = importlib.util.find_spec("pillow_heif") is not None
    return known | set(HEIF_ENDINGS) if has_heif else known - set(HEIF_ENDINGS)


def require_no_url(text: object) -> None:
    """Raise UserError for a URL: nothing is downloaded unasked."""
    if isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise UserError(f"{text} is a URL: download it first, and give the file")


@dataclass
class FolderContent:
    """`images` in `folder`, sorted by name, and how many entries of which kind were `left_out`, by ending."""

    folder: Path
    images: list[Path] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)

    def describe_left_out(self, hints: Mapping[str, str] = HEIF_HINTS) -> str:
        """What was left out, and in brackets the hint for it; "nothing"."""
        kinds = []
        for kind, number in self.left_out.most_common():
            name = f"{number} {kind}" if kind.startswith(".") else f"{number} {kind}{'s'[: number > 1]}"
            kinds.append(f"{name} ({hints[kind]})" if kind in hints else name)
        return ", ".join(kinds) or "nothing"

    def problem(self, hints: Mapping[str, str] = HEIF_HINTS) -> str:
        """The line for a folder without images."""
        return f"{self.folder} is a folder without images, with {self.describe_left_out(hints)}: give another"


def list_folder(folder: Path, *, recursive: bool = False) -> FolderContent:
    """The images in `folder`, and in the folders below it if `recursive`; hidden files are left out.

    Raises UserError for a folder that cannot be read.
    """
    content, endings = FolderContent(folder), image_endings()
    for parent, folders, files in os.walk(folder, onerror=raise_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not recursive:
            content.left_out[FOLDER] += len(folders)
            folders.clear()
        for name in sorted(files):
            ending = Path(name).suffix.lower()
            if ending in endings and not name.startswith("."):
                content.images.append(Path(parent, name))
            else:
                content.left_out[HIDDEN if name.startswith(".") else ending or NO_ENDING] += 1
    content.left_out = +content.left_out  # without zeros
    return content


def raise_unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}): check the disk and the permissions")


@dataclass
class FoundImages:
    """`files`: image -> its folder below the one that was named. `missing`: a line for each argument without images.
    `folders`: those from which something was left out.
    """

    files: dict[Path, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    folders: list[FolderContent] = field(default_factory=list)


def find_images(arguments: Sequence[str], *, recursive: bool = False) -> FoundImages:
    """The named files, those in folders that end like images, and those that match a pattern; each once.

    Raises UserError for a URL, and if nothing is found.
    """
    found = FoundImages()
    for argument in arguments:
        require_no_url(argument)
        path = Path(argument).expanduser()
        if path.is_dir():
            content = list_folder(path, recursive=recursive)
            files = [(file, file.parent.relative_to(path)) for file in content.images]
            found.folders += [content] if content.left_out and content.images else []
            problem = content.problem(FLAG_HINTS)
        else:
            files = [(file, Path()) for file in matching_files(path)]
            problem = f"{argument} is not an image or a folder with images, and matches no file: correct it"
            if path.is_file() and path.suffix.lower() in VIDEO_ENDINGS:
                files, problem = [], f"{argument} is a video: give it to `video`"
        for file, below in files:
            found.files.setdefault(file.absolute(), below)
        found.missing += [] if files else [problem]
    if not found.files:
        raise UserError(found.missing[0])
    return found


def matching_files(path: Path) -> list[Path]:
    """The file itself, else those that match it as a pattern, sorted."""
    names = [path] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
    return [Path(name) for name in names if Path(name).is_file()]
