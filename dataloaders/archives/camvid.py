"""CamVid in SegNet's edition (Badrinarayanan et al., arXiv 1511.00561), as the layout `folder`."""

import shutil
from pathlib import Path

import numpy as np

from dataloaders.archives.unpack import FIX, make_folder, unpack
from utils.distinct_colors import distinct_palette
from utils.errors import UserError, writing
from utils.images import open_label
from utils.palettes import palette_image
from utils.run.files import write_atomically

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID = len(CLASSES)  # becomes 255
SPLITS = ("train", "val", "test")


def convert(archive: Path, inner: str, folder: Path) -> None:
    """Unpack <split>/*.png and <split>annot/*.png, and make VOC's layout and classes.txt of them."""
    raw, lists = folder / "unpacked", folder / "ImageSets" / "Segmentation"
    unpack(archive, inner, raw)
    clear(folder, but=raw)
    for path in (folder / "JPEGImages", folder / "SegmentationClass", lists):
        make_folder(path)
    with writing(folder, FIX):
        for split in SPLITS:
            ids = [convert_pair(image, raw / f"{split}annot", folder) for image in sorted((raw / split).glob("*.png"))]
            write_atomically(lists / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids).encode())
        write_atomically(folder / "classes.txt", "".join(f"{name}\n" for name in CLASSES).encode())
        shutil.rmtree(raw)


def clear(folder: Path, *, but: Path) -> None:
    """Remove what an interrupted call has made of `but`."""
    with writing(folder, FIX):
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
            elif path != but:
                shutil.rmtree(path)


def convert_pair(image: Path, labels: Path, folder: Path) -> str:
    """Write an image and its label. Returns their id.

    The label has the image's name, or `trainannot_00001.png` for `train_00001.png`.
    """
    names = (image.name, image.name.replace(f"{image.parent.name}_", f"{labels.name}_"))
    label_file = next((path for name in names if (path := labels / name).is_file()), None)
    if label_file is None:
        raise UserError(f"{labels} has no label for {image.name}: the archive is incomplete, delete it")
    label = np.asarray(open_label(label_file))
    if label.max() > VOID:
        raise UserError(f"{label_file} holds {label.max()}, not only the classes 0 to 10 and 11: delete the archive")
    label = np.where(label == VOID, 255, label).astype(np.uint8)
    palette_image(label, distinct_palette(CLASSES)).save(folder / "SegmentationClass" / image.name)
    image.replace(folder / "JPEGImages" / image.name)
    return image.stem
