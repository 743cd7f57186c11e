"""Which annotation belongs to which image: by stem, by known endings of masks, and by folder where stems repeat."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dataloaders.checks.layout import first_five
from dataloaders.voc import IMAGE_SUFFIXES

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg")
# Endings of a mask's stem beside that of its image
MASK_ENDING = re.compile(
    r"[-_. ](masks?|labels?|gt|segm?|segmentation|annotations?|(gtFine_)?label(Train)?Ids|L)$", re.IGNORECASE
)
# Folders that hold masks, and those that say nothing of an image but what kind of file it is
MASK_FOLDERS = {"mask", "masks", "label", "labels", "annotation", "annotations", "gt", "segmentationclass", "seg"}
PLAIN_FOLDERS = MASK_FOLDERS | {"image", "images", "img", "imgs", "jpegimages", "rgb"}
MARKER = ".unfinished-convert"  # a file in the folder that convert writes until it is complete
SKIPPED_FOLDERS = {"SegmentationObject", "__MACOSX"}  # instance numbers beside CVAT's masks; macOS's shadow files


class File(NamedTuple):
    """A file below a root: its folder, as parts below the root, and the key that image and annotation share."""

    path: Path
    folder: tuple[str, ...]
    key: str

    @property
    def place(self) -> tuple[str, ...]:
        """The folder without parts such as images/ and masks/: equal for an image and its mask."""
        return tuple(part for part in self.folder if part.lower() not in PLAIN_FOLDERS)


def files_below(root: Path, suffixes: Sequence[str]) -> list[File]:
    """The files with one of the lower-case `suffixes`, in the order of their paths; the key is the stem.

    Hidden files and folders are left out, and what an interrupted convert wrote. Links to folders are followed, each
    folder is visited once.
    """
    found, visited = [], set()
    for folder, names, file_names in os.walk(root, followlinks=True):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        real = os.path.realpath(folder)
        if real in visited or MARKER in file_names:
            names.clear()
            continue
        visited.add(real)
        parts = Path(folder).relative_to(root).parts
        paths = [Path(folder, name) for name in sorted(file_names) if not name.startswith(".")]
        found += [File(path, parts, path.stem.strip()) for path in paths if path.suffix.lower() in suffixes]
    return sorted(found)


def images_and_masks(
    images: Path, masks: Path, *, suffix: str | None, image_suffix: str | None
) -> tuple[list[File], list[File]]:
    """The images and the masks below two folders, of which one may be the other or contain it.

    With `image_suffix`, an image is a file whose stem ends in it; its key is the stem without it.
    """
    found = files_below(masks, MASK_SUFFIXES)
    if images.resolve() == masks.resolve():
        originals = {(file.folder, file.key) for file in found if file.path.suffix.lower() in (".jpg", ".jpeg")}
        found = [file for file in found if looks_like_mask(file, originals, suffix)]
    elif masks.resolve() in images.resolve().parents:  # masks/ holds the images too
        inner = {file.path.resolve() for file in files_below(images, MASK_SUFFIXES)}
        found = [file for file in found if file.path.resolve() not in inner]
    paths = {file.path.resolve() for file in found}
    others = [file for file in files_below(images, IMAGE_SUFFIXES) if file.path.resolve() not in paths]
    return with_suffix(others, image_suffix), found


def with_suffix(files: Sequence[File], suffix: str | None) -> list[File]:
    """The files whose key ends in `suffix`, with keys without it; all files if there is no suffix."""
    if not suffix:
        return list(files)
    return [file._replace(key=file.key.removesuffix(suffix)) for file in files if file.key.endswith(suffix)]


def looks_like_mask(file: File, originals: set[tuple], suffix: str | None) -> bool:
    """Of a folder with both: by its folder, by its ending, or because a JPEG has the same name."""
    if suffix:
        return file.key.endswith(suffix)
    if {part.lower() for part in file.folder} & MASK_FOLDERS:
        return True
    has_twin = (file.folder, file.key) in originals and file.path.suffix.lower() not in (".jpg", ".jpeg")
    return has_twin or bool(MASK_ENDING.search(file.key))


class Matches(NamedTuple):
    """Pairs in the order of the images, the files without a partner, and what could not be decided."""

    pairs: list[tuple[File, File]]
    images: list[File]
    labels: list[File]
    problems: list[str]


def match(images: Sequence[File], labels: Sequence[File], suffix: str | None) -> Matches:
    """Pair images with annotations of the same key. With `suffix`, only annotations whose key ends in it count."""
    images_by_key = group(images)
    labels_by_key = defaultdict(list)
    alone = []
    for label in labels:
        key = next((key for key in possible_keys(label.key, suffix) if key in images_by_key), None)
        alone.append(label) if key is None else labels_by_key[key].append(label)
    if suffix:
        alone = [label for label in alone if label.key.endswith(suffix)]
    partners, problems = {}, []
    for key, candidates in labels_by_key.items():
        found, left, undecided = match_group(images_by_key[key], candidates)
        partners |= found
        alone += left
        problems += undecided
    pairs = [(image, partners[image.path]) for image in images if image.path in partners]
    unmatched = [image for image in images if image.path not in partners]
    return Matches(pairs, unmatched, alone, problems)


def group(files: Sequence[File]) -> dict[str, list[File]]:
    groups = defaultdict(list)
    for file in files:
        groups[file.key].append(file)
    return groups


def possible_keys(key: str, suffix: str | None) -> Iterator[str]:
    """The keys of the image that an annotation of this key may belong to, the most likely first."""
    if suffix:
        if key.endswith(suffix):
            yield key.removesuffix(suffix)
        return
    yield key
    yield MASK_ENDING.sub("", key)
    if Path(key).suffix.lower() in IMAGE_SUFFIXES:  # photo.jpg.png
        yield Path(key).stem


def match_group(images: list[File], labels: list[File]) -> tuple[dict[Path, File], list[File], list[str]]:
    """({image: annotation}, annotations without image, problems) of files that share a key."""
    if len(images) == len(labels) == 1:
        return {images[0].path: labels[0]}, [], []
    partners, left, problems = {}, [], []
    for label in labels:
        same_place = images if len(images) == 1 else [image for image in images if image.place == label.place]
        if not same_place:
            left.append(label)
        elif len(same_place) > 1:
            names = " and ".join(str(image.path) for image in same_place[:2])
            problems.append(f"{names} have one stem, so that {label.path} fits both: rename one of them")
        elif (first := partners.setdefault(same_place[0].path, label)) is not label:
            problems.append(
                f"{first.path} and {label.path} both fit {same_place[0].path}: remove one of them, or give "
                "--suffix TEXT, the ending of the right ones"
            )
    return partners, left, problems


def ids_of(images: Sequence[File]) -> tuple[list[str], list[str]]:
    """(an id for each image, problems): the key, and before it the folder where keys repeat.

    Two images with one key in a folder are a problem.
    """
    counts = Counter(image.key for image in images)
    ids = [image.key if counts[image.key] == 1 else "_".join((*image.place, image.key)) for image in images]
    first, problems = {}, []
    for image_id, image in zip(ids, images, strict=True):
        if (other := first.setdefault(image_id, image)) is not image:
            problems.append(f"{other.path} and {image.path} both have the id {image_id}: rename one of them")
    return ids, problems


def unmatched_problems(matches: Matches, kind: str) -> list[str]:
    """What to do about files without a partner; `kind` of annotation, "mask"."""
    images, labels = ([str(file.path) for file in files] for files in (matches.images, matches.labels))
    if not matches.pairs:
        return [nothing_matches(matches, kind)]
    fix = "add what is missing, or give --skip-unmatched to leave them out"
    problems = [f"{len(images)} images have no {kind}: {first_five(images)}: {fix}"] if images else []
    return problems + ([f"{len(labels)} {kind}s have no image: {first_five(labels)}: {fix}"] if labels else [])


def nothing_matches(matches: Matches, kind: str) -> str:
    if not matches.images:
        return "no image found: check --images and --image-suffix"
    if not matches.labels:
        example = f"; images are named such as {matches.images[0].path.name}"
        return f"no {kind} found{example}: check --masks, or give --suffix TEXT, the ending of {kind}s' names"
    image, label = matches.images[0], matches.labels[0]
    fix = common_suffix(group(matches.images), matches.labels)
    fix = f"--suffix {fix}" if fix else "--suffix TEXT (and --image-suffix TEXT), their endings"
    return (
        f"no {kind} has the stem of an image: images are named such as {image.path.name}, {kind}s such as "
        f"{label.path.name}: give {fix}"
    )


def common_suffix(images: Mapping[str, object], labels: Sequence[File]) -> str | None:
    """The most frequent text that follows the key of an image in the key of an annotation."""
    endings = Counter(
        label.key[length:] for label in labels for length in range(1, len(label.key)) if label.key[:length] in images
    )
    return endings.most_common(1)[0][0] if endings else None
