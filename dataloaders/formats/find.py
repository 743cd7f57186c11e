"""Finds what a user has: the format of the annotations, their images, classes and splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloaders.checks.annotations import read_json
from dataloaders.checks.layout import require_folder
from dataloaders.formats.classes import ClassList, find_class_list, read_class_list
from dataloaders.formats.coco import Coco, CocoFiles
from dataloaders.formats.labelme import Labelme, with_key
from dataloaders.formats.masks import MaskOptions, Masks
from dataloaders.formats.match import (
    PLAIN_FOLDERS,
    File,
    Matches,
    files_below,
    ids_of,
    images_and_masks,
    match,
    unmatched_problems,
    with_suffix,
)
from dataloaders.formats.source import Item, Source, raise_all
from dataloaders.formats.split import listed_split, read_lists, split_of_folder
from dataloaders.voc import IMAGE_SUFFIXES
from utils.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where images and annotations lie, and how their names belong together."""

    images: Path
    masks: Sequence[Path]  # a folder, or JSON files
    suffix: str | None = None
    image_suffix: str | None = None
    skip_unmatched: bool = False

    @property
    def folders(self) -> list[Path]:
        """Where an export may keep its class list and split lists."""
        folder = self.masks[0] if self.masks[0].is_dir() else self.masks[0].parent
        inner = [folder.resolve(), self.images.resolve()]
        above = [path.parent for path in inner if path.name.lower() in PLAIN_FOLDERS]
        return list(dict.fromkeys([folder, self.images, *above]))


def open_source(place: Place, class_file: Path | None, options: MaskOptions) -> Source:
    """The images with their annotations, matched. Raises UserError for what is missing or ambiguous."""
    check_place(place)
    classes = read_class_list(class_file) if class_file else None
    if not any(path.is_file() for path in place.masks):
        images, masks = images_and_masks(
            place.images, place.masks[0], suffix=place.suffix, image_suffix=place.image_suffix
        )
        if masks or not files_below(place.masks[0], [".json"]):
            classes = classes or require_classes(place)
            return Masks(make_items(match(images, masks, place.suffix), Masks.kind, place), classes, options)
    return open_json(place, classes, options)


def check_place(place: Place) -> None:
    """Raise UserError for a missing path."""
    require_folder(place.images, "--images", "images") if place.images.exists() else missing(place.images, "--images")
    for path in place.masks:
        if not path.exists():
            missing(path, "--masks")
        if path.is_file() and path.suffix.lower() != ".json":
            raise UserError(f"--masks {path} is no JSON file: give the folder of the masks, or JSON files")
    if len(place.masks) > 1 and not all(path.is_file() for path in place.masks):
        raise UserError("--masks: give one folder, or JSON files")


def missing(path: Path, flag: str) -> None:
    raise UserError(f"{flag} {path} does not exist: give the folder of the {flag.removeprefix('--')}")


def require_classes(place: Place) -> ClassList:
    """The class list of an export. Raises UserError if there is none."""
    if found := find_class_list(place.folders):
        return found
    raise UserError(
        "no class list found (labelmap.txt, _classes.csv or classes.txt beside the masks): give --classes FILE, one "
        "name (or `name r g b` for masks of colors) a line, in the order of the class numbers from 0"
    )


def open_json(place: Place, classes: ClassList | None, options: MaskOptions) -> Source:
    """COCO or labelme, whichever the first file is."""
    if options.values is not None or options.first_id:
        raise UserError("--values and --first-id are for masks, not for JSON files: leave them out")
    paths = [file for path in place.masks for file in ([path] if path.is_file() else json_files(path))]
    contents = {path: read_content(path) for path in paths}
    names = {"classes": classes, "ignore": options.ignore, "unknown": options.unknown}
    images = with_suffix(files_below(place.images, IMAGE_SUFFIXES), place.image_suffix)
    coco = [path for path, content in contents.items() if {"images", "annotations"} <= content.keys()]
    if coco:
        files = CocoFiles({path: contents[path] for path in coco})
        matches, keys, splits = files.match(images)
        return Coco(make_items(matches, Coco.kind, place, splits), files, keys, **names)
    contents = {path: content for path, content in contents.items() if "shapes" in content}
    if not contents:
        raise UserError(f"{paths[0]} is neither COCO (images, annotations) nor labelme (shapes): check --masks")
    labels = [with_key(File(path, path.parent.parts, path.stem), content) for path, content in contents.items()]
    labels = [label._replace(folder=relative_folder(label.path, place)) for label in labels]
    return Labelme(make_items(match(images, labels, place.suffix), Labelme.kind, place), contents, **names)


def json_files(folder: Path) -> list[Path]:
    return [file.path for file in files_below(folder, [".json"])]


def read_content(path: Path) -> dict:
    """A JSON file without the image that labelme stores in it: those of thousands of files would fill the memory."""
    content = read_json(path)
    content.pop("imageData", None)
    return content


def relative_folder(path: Path, place: Place) -> tuple[str, ...]:
    root = place.masks[0]
    return path.parent.relative_to(root).parts if root in path.parents else ()


def make_items(matches: Matches, kind: str, place: Place, splits: dict | None = None) -> list[Item]:
    """The pairs with ids and the splits of the source: those of `splits`, else of its lists, else of its folders.

    Raises UserError for ambiguous names, and without `skip_unmatched` for files without a partner.
    """
    images = [image for image, _ in matches.pairs]
    ids, problems = ids_of(images)
    if not place.skip_unmatched or not matches.pairs:
        problems += unmatched_problems(matches, kind)
    raise_all(matches.problems + problems)
    lists = read_lists(place.folders)
    return [
        Item(image_id, image.path, label.path, split_of_item(image, image_id, lists, splits))
        for image_id, (image, label) in zip(ids, matches.pairs, strict=True)
    ]


def split_of_item(image: File, image_id: str, lists: dict[str, str], splits: dict | None) -> str | None:
    if lists:
        return listed_split(lists, image.path, image_id)
    return splits[image.path] if splits else split_of_folder(image.folder)
