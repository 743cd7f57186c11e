"""Small datasets and networks that tests write into temporary folders."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling import build_model
from utils.palettes import voc_palette


def random_label(random: np.random.Generator, num_classes: int, size=(36, 48)) -> np.ndarray:
    """Blocks of classes with a frame of 255."""
    blocks = random.integers(0, num_classes, (3, 4), dtype=np.uint8)
    label = np.kron(blocks, np.ones((size[0] // 3, size[1] // 4), np.uint8))
    label[0], label[:, -1] = 255, 255
    return label


def save_label(label: np.ndarray, path: Path) -> None:
    image = Image.fromarray(label)
    image.putpalette(np.array(voc_palette(256), np.uint8).tobytes())  # a shorter one makes Pillow store fewer bits
    image.save(path)


def write_voc(
    root: Path, splits: dict[str, list[str]], num_classes: int = 21, seed: int = 0, ending: str = ".jpg"
) -> Path:
    """A dataset in VOC's layout. Its images show the palette's color of each class, and white for 255."""
    random = np.random.default_rng(seed)
    palette = np.array([*voc_palette(num_classes), *[(255, 255, 255)] * (256 - num_classes)], np.uint8)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, ids in splits.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{key}\n" for key in ids))
        for key in ids:
            label = random_label(random, num_classes)
            save_label(label, root / f"SegmentationClass/{key}.png")
            Image.fromarray(palette[label]).save(root / f"JPEGImages/{key}{ending}")
    return root


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco_object(image_id: int, category: int, outline, is_crowd: int = 0) -> dict:
    return {"image_id": image_id, "category_id": category, "segmentation": outline, "iscrowd": is_crowd}


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = [0, *edges.tolist(), flat.size]
    runs = np.diff(bounds).tolist()
    return [0, *runs] if flat[0] else runs


def write_network(path: Path, classes: tuple[str, ...], **config) -> Path:
    """What evaluate.py and predict.py need of a checkpoint, for a MobileNet of width 0.25 with random weights.

    `config` adds entries to the one that the checkpoint holds.
    """
    torch.manual_seed(5)
    model = build_model("mobilenet", len(classes), head="lite", width=0.25)
    torch.nn.init.normal_(model.decoder.classifier.weight, std=1.0)  # else every pixel gets the same class
    config = {"backbone": "mobilenet", "head": "lite", "width": 0.25, "wide_tap": False, "multi_grid": False} | config
    config = {"out_stride": 16, "crop_size": [33, 33]} | config
    state = {"state_dict": model.state_dict(), "config": config, "classes": list(classes)} | model.preprocessing
    torch.save(state | {"palette": [list(color) for color in voc_palette(len(classes))]}, path)
    return path


def write_ade20k(root: Path, seed: int = 0) -> Path:
    """Six images of ADE20K's train split, two of its val split, with the values 0 to 150."""
    random = np.random.default_rng(seed)
    for folder, prefix, count in (("training", "ADE_train", 6), ("validation", "ADE_val", 2)):
        (root / "images" / folder).mkdir(parents=True)
        (root / "annotations" / folder).mkdir(parents=True)
        for number in range(1, count + 1):
            label = np.kron(random.integers(0, 151, (9, 12), dtype=np.uint8), np.ones((4, 4), np.uint8))
            Image.fromarray(label).save(root / f"annotations/{folder}/{prefix}_{number:08d}.png")
            image = random.integers(0, 255, (36, 48, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f"images/{folder}/{prefix}_{number:08d}.jpg")
    return root


def write_context(root: Path) -> Path:
    """Pascal Context: VOC's layout, with other names of two folders, and the values 0 to 59."""
    write_voc(root, {"train": [f"t{n}" for n in range(6)], "val": ["v0", "v1"]}, num_classes=60)
    (root / "ImageSets/Segmentation").rename(root / "ImageSets/SegmentationContext")
    (root / "SegmentationClass").rename(root / "SegmentationClassContext")
    return root
