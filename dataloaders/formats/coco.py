"""COCO JSON with its own categories. A smaller object covers a larger one; crowds are 255."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.base import IGNORE_INDEX
from dataloaders.checks.annotations import MIN_NUMBERS, check_content, select_objects
from dataloaders.formats.classes import ClassList
from dataloaders.formats.match import File, Matches
from dataloaders.formats.names import NameTable, make_table
from dataloaders.formats.pixels import count_codes
from dataloaders.formats.source import Item, Reading, Source, raise_all
from dataloaders.formats.split import split_of_folder
from utils.errors import UserError


class CocoFiles:
    """The contents of one or more JSON files with the same categories, by path."""

    def __init__(self, contents: Mapping[Path, dict]):
        self.contents = contents
        self.categories: dict[int, str] = {}
        for path, content in self.contents.items():
            check_content(path, content)
            self.add_categories(path, content["categories"])

    def add_categories(self, path: Path, categories: Sequence[object]) -> None:
        for entry in categories:
            if not isinstance(entry, dict) or type(entry.get("id")) is not int or not entry.get("name"):
                raise UserError(f"{path} has a category without id or name: {entry}: correct it")
            name = self.categories.setdefault(entry["id"], str(entry["name"]))
            if name != str(entry["name"]):
                raise UserError(
                    f"{path} calls category {entry['id']} {entry['name']!r}, another file {name!r}: convert the files "
                    "separately, or export them with the same categories"
                )

    def used(self) -> Counter:
        """The number of objects of each category's name."""
        entries = (entry for content in self.contents.values() for entry in content["annotations"])
        ids = (entry.get("category_id") for entry in entries if isinstance(entry, dict))
        return Counter(self.categories[number] for number in ids if number in self.categories)

    def listed(self) -> list[str]:
        return [self.categories[number] for number in sorted(self.categories)]

    def match(self, images: Sequence[File]) -> tuple[Matches, dict[Path, tuple[Path, int]], dict[Path, str | None]]:
        """(pairs of an image and its JSON file, {image: (JSON file, COCO's image id)}, {image: split}).

        A listed name fits the image whose path ends in it; of several, the one in the folder of the JSON's split.
        """
        by_name = defaultdict(list)
        for image in images:
            by_name[image.path.name].append(image)
        pairs, missing, problems, keys = [], [], [], {}
        for path, content in self.contents.items():
            for entry in content["images"]:
                found = choose(by_name.get(Path(entry["file_name"]).name, []), entry["file_name"], path)
                label = File(path, (), entry["file_name"])
                if not found:
                    missing.append(label._replace(path=Path(f"{entry['file_name']} of {path}")))
                elif len(found) > 1 or found[0].path in keys:
                    problems.append(f"{found[0].path} fits more than one image of {path}: give images other names")
                else:
                    pairs.append((found[0], label))
                    keys[found[0].path] = (path, entry["id"])
        splits = {image.path: split_of_folder(image.folder) or split_of_file(label.path) for image, label in pairs}
        alone = [image for image in images if image.path not in keys]
        return Matches(sorted(pairs), alone, missing, problems), keys, splits


def choose(candidates: Sequence[File], name: str, path: Path) -> list[File]:
    """Those of `candidates` that a name listed in the JSON file `path` fits best."""
    parts = Path(name).parts
    found = [image for image in candidates if image.path.parts[-len(parts) :] == parts]
    for is_near in (
        lambda image: image.path.parent == (path.parent / name).parent,
        lambda image: split_of_file(path) and split_of_folder(image.folder) == split_of_file(path),
    ):
        found = [image for image in found if is_near(image)] or found
    return found


def split_of_file(path: Path) -> str | None:
    """The split that a JSON file, or its folder, is named after: instances_train2017.json, train/_annotations.json."""
    parts = [path.parent.name, *path.stem.replace("-", "_").replace(".", "_").split("_")]
    return split_of_folder(parts[::-1])


class Coco(Source):
    """Objects drawn over the background, the largest first."""

    kind = "COCO annotation"

    def __init__(
        self, items: Sequence[Item], files: CocoFiles, keys: Mapping[Path, tuple[Path, int]], *,
        classes: ClassList | None, ignore: Sequence[str], unknown: str | None,
    ):  # fmt: skip
        first = next(iter(files.contents))
        self.items, self.keys = items, keys
        self.class_file = str(classes.file if classes else first)
        self.table = make_table(files.used(), files.listed(), classes, source=first, ignore=ignore, unknown=unknown)
        self.classes, self.colors = self.table.classes, self.table.colors
        self.objects, self.notes, problems = {}, [], []
        class_of = {category: number_of(self.table, name) for category, name in files.categories.items()}
        for path, content in files.contents.items():
            self.objects[path] = select_objects(path, content, class_of, problems.extend)
            if short := self.objects[path].num_short:
                self.notes.append(f"{path}: {short} polygons of fewer than {MIN_NUMBERS} numbers are left out")
        raise_all(problems)

    def read_label(self, item: Item) -> tuple[Image.Image, Reading]:
        path, image_id = self.keys[item.image]
        images, objects, _ = self.objects[path]
        size = images[image_id]["height"], images[image_id]["width"]
        image = Image.fromarray(self.draw(objects.get(image_id, ()), *size))
        return image, Reading(count_codes(image))

    def draw(self, objects: Sequence[tuple], height: int, width: int) -> np.ndarray:
        """Class numbers, uint8 [height, width], of the objects of `select_objects`."""
        from pycocotools import mask as mask_tools

        from dataloaders.coco_labels import encode_outline

        label = np.full((height, width), self.table.fill, np.uint8)
        masks = [(number, is_crowd, encode_outline(outline, height, width)) for number, is_crowd, outline in objects]
        for number, is_crowd, mask in sorted(masks, key=lambda row: (row[1], -int(mask_tools.area(row[2])))):
            if number >= 0:
                label[mask_tools.decode(mask).astype(bool)] = IGNORE_INDEX if is_crowd else number
        return label


def number_of(table: NameTable, name: str) -> int:
    """The class of a category; -1 if it is not drawn."""
    number = table.numbers.get(name)
    return -1 if number is None else number
