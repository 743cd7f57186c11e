"""Which images train and which validate: the source's own splits, or a stratified one by names and seed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataloaders.checks.layout import first_five, read_lines
from dataloaders.voc import IMAGE_SUFFIXES
from utils.errors import UserError

SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
LIST_FOLDERS = ("ImageSets/Segmentation", ".")


def split_of(name: str) -> str | None:
    """The split that a folder or list is named after: train2017 -> train; None for other names."""
    return SPLIT_OF.get(re.sub(r"[-_]?\d+$", "", name.lower()))


def split_of_folder(parts: Sequence[str]) -> str | None:
    return next((split for part in parts if (split := split_of(part))), None)


def read_lists(roots: Sequence[Path]) -> dict[str, str]:
    """{name of an image: split} of the lists train.txt and val.txt (and test.txt) of the first root that has both.

    The name is as in the list, without an image's ending.
    """
    for folder in (root / name for root in roots for name in LIST_FOLDERS):
        lists = {split: path for path in sorted(folder.glob("*.txt")) if (split := split_of(path.stem))}
        if {"train", "val"} <= lists.keys():
            return {strip_ending(line): split for split, path in lists.items() for line in read_lines(path) if line}
    return {}


def strip_ending(name: str) -> str:
    return str(Path(name).with_suffix("")) if Path(name).suffix.lower() in IMAGE_SUFFIXES else name


def listed_split(lists: Mapping[str, str], path: Path, image_id: str) -> str | None:
    """The split of an image that is listed by id, stem or path."""
    names = {strip_ending("/".join(path.parts[start:])) for start in range(len(path.parts))}
    return next((lists[name] for name in (image_id, *sorted(names, key=len)) if name in lists), None)


def kept_splits(ids: Sequence[str], splits: Sequence[str | None]) -> dict[str, list[str]]:
    """{split: ids}. Raises UserError unless each image has a split, and there are both train and val."""
    found = {name: [image_id for image_id, split in zip(ids, splits, strict=True) if split == name] for name in
             ("train", "val", "test")}  # fmt: skip
    without = [image_id for image_id, split in zip(ids, splits, strict=True) if split is None]
    if len(without) == len(ids):
        raise UserError("no split found (folders or lists named train and val): give --val 0.2 to make one")
    if without:
        raise UserError(
            f"{len(without)} images are in no split: {first_five(without)}: give --val 0.2 to split train and val anew"
        )
    if missing := [name for name in ("train", "val") if not found[name]]:
        raise UserError(
            f"no image is in the split {missing[0]}: give --val 0.2 to split train and val anew (test stays test)"
        )
    return {name: members for name, members in found.items() if members}


def new_splits(
    ids: Sequence[str], splits: Sequence[str | None], presence: np.ndarray, share: float, seed: int
) -> dict[str, list[str]]:
    """{split: ids} with the share `share` of images in val; images of a split test stay there."""
    rest = [index for index, split in enumerate(splits) if split != "test"]
    is_val = stratify([ids[index] for index in rest], presence[rest], share, seed)
    found = {
        "train": [ids[index] for index, chosen in zip(rest, is_val, strict=True) if not chosen],
        "val": [ids[index] for index, chosen in zip(rest, is_val, strict=True) if chosen],
    }
    test = [image_id for image_id, split in zip(ids, splits, strict=True) if split == "test"]
    return found | ({"test": test} if test else {})


def stratify(ids: Sequence[str], presence: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Whether each image is in val: bool [N], a function of the set of ids, their classes, `share` and `seed`.

    Iterative stratification (Sechidis et al., 2011): of the classes, the one with the fewest open images comes first;
    each of its images goes where the class lacks most. A class gets an image in train before one in val. Exactly
    round(share * N) images are in val, but at least one and not all. `presence` is bool [N, K].
    """
    if len(ids) < 2:
        raise UserError(f"{len(ids)} image cannot be split into train and val: add images")
    num_val = min(max(1, round(share * len(ids))), len(ids) - 1)
    room = np.array([len(ids) - num_val, num_val])  # of train, val
    wanted = np.outer(room / len(ids), presence.sum(0))
    order = sorted(range(len(ids)), key=lambda index: hashlib.sha256(f"{seed}/{ids[index]}".encode()).digest())
    chosen = np.full(len(ids), -1)
    in_train = np.zeros(presence.shape[1], bool)
    for index, number in rarest_first(order, presence, chosen):
        need = room / len(ids) if number is None else wanted[:, number]
        is_val = bool(need[1] > need[0] and in_train[presence[index]].all())
        side = int(is_val) if room[int(is_val)] else 1 - int(is_val)
        chosen[index] = side
        room[side] -= 1
        wanted[side] -= presence[index]
        in_train |= presence[index] & (side == 0)
    return chosen == 1


def rarest_first(order: Sequence[int], presence: np.ndarray, chosen: np.ndarray):
    """Yield (index of an image, its class), the class with the fewest open images first; None for those without one.

    The caller sets `chosen` of an image before it asks for the next.
    """
    while True:
        counts = presence[chosen < 0].sum(0)
        if not counts.any():
            break
        number = int(np.where(counts > 0, counts, len(presence) + 1).argmin())
        for index in order:
            if chosen[index] < 0 and presence[index, number]:
                yield index, number
    for index in order:
        if chosen[index] < 0:
            yield index, None
