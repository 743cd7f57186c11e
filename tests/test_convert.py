"""`python -m dataloaders.convert`: exports of other tools become the labels that they show, or a line with the fix."""

import base64
import io
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageOps
from running import in_process, said
from sample_data import box, run_lengths, save_label
from test_bad_input import contains

from dataloaders import build_dataset, check, class_names, convert
from dataloaders.formats.split import stratify
from utils.palettes import voc_palette

SIZE = (36, 48)  # height, width
COLORS = [(0, 0, 0), (128, 64, 128), (70, 130, 180)]
NAMES = ["background", "road", "sky"]


def blocks(seed: int, values: Sequence[int] = (0, 1, 2)) -> np.ndarray:
    """uint8 [36, 48] of blocks of `values`, each of which occurs."""
    random = np.random.default_rng(seed)
    grid = random.permutation(np.resize(values, 12)).reshape(3, 4)
    return np.kron(grid, np.ones((12, 12))).astype(np.uint8)


def write_image(path: Path, size: tuple[int, int] = SIZE, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def write_mask(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def colored(label: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] with white for 255."""
    table = np.full((256, 3), 255, np.uint8)
    table[: len(COLORS)] = COLORS
    return table[label]


def color_rows() -> str:
    return "".join(f"{name} {r} {g} {b}\n" for name, (r, g, b) in zip(NAMES, COLORS, strict=True))


def gray_export(root: Path, count: int = 6, shift: Callable = lambda label: label) -> Path:
    """images/<id>.jpg, masks/<id>_mask.png of the classes of blocks(n), and FILE."""
    for n in range(count):
        write_image(root / f"images/{n}.jpg")
        write_mask(root / f"masks/{n}_mask.png", shift(blocks(n)))
    (root / "names.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return root


def color_export(root: Path, count: int = 4, paint: Callable = colored) -> Path:
    gray_export(root, count)
    for n in range(count):
        write_mask(root / f"masks/{n}_mask.png", paint(blocks(n)))
    (root / "names.txt").write_text(color_rows())
    return root


def flags(root: Path) -> list[str]:
    return ["--images", f"{root}/images", "--masks", f"{root}/masks", "--classes", f"{root}/names.txt"]


def run(root: Path, *more: str, status: int = 0) -> Path:
    """Convert into a folder beside `root`, and return it."""
    out = root.with_name("out")
    assert convert.main([*(more if "--images" in more else [*flags(root), *more]), "--out", str(out)]) == status
    return out


def labels_of(out: Path, split: str) -> dict[str, np.ndarray]:
    data = build_dataset("folder", split, root=str(out))
    return {image_id: np.asarray(data.read(index)[1]) for index, image_id in enumerate(data.ids)}


def all_labels(out: Path) -> dict[str, np.ndarray]:
    return {key: label for split in ("train", "val") for key, label in labels_of(out, split).items()}


def is_sound(out: Path) -> bool:
    return check.main(["--dataset", "folder", "--data-root", str(out), "--workers", "0"]) == 0


# Exports


def cvat_export(root: Path) -> Path:
    """Segmentation mask 1.1: RGB and palette PNG, instances in SegmentationObject/, one list."""
    for n in range(4):
        write_image(root / f"JPEGImages/{n}.jpg")
        write_mask(root / f"SegmentationObject/{n}.png", colored(blocks(9)))
        image = Image.fromarray(colored(blocks(n)))
        (root / "SegmentationClass").mkdir(exist_ok=True)
        (image.quantize(8) if n % 2 else image).save(root / f"SegmentationClass/{n}.png")
    rows = [f"{name}:{','.join(map(str, color))}::\n" for name, color in zip(NAMES, COLORS, strict=True)]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "".join(rows))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n")
    return root


def roboflow_export(root: Path) -> Path:
    for n, split in enumerate(("train", "train", "valid", "test")):
        stem = f"photo{n}_jpg.rf.0123abcd"
        write_image(root / f"{split}/{stem}.jpg")
        write_mask(root / f"{split}/{stem}_mask.png", blocks(n))
        (root / f"{split}/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, road\n2, sky\n")
    return root


def coco_export(root: Path, change: Callable = lambda content: None) -> Path:
    """Two images of a field (category 7) with a dog (3) on it, the dog listed first; run lengths; a crowd."""
    crowd = np.zeros(SIZE, np.uint8)
    crowd[30:, :] = 1
    row = {"iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
    objects = [
        row | {"image_id": 1, "category_id": 3, "segmentation": [box(12, 12, 24, 24)]},
        row | {"image_id": 1, "category_id": 7, "segmentation": [box(6, 6, 42, 34)]},
        row | {"image_id": 1, "category_id": 3, "iscrowd": 1,
               "segmentation": {"size": list(SIZE), "counts": run_lengths(crowd)}},
        row | {"image_id": 2, "category_id": 7, "segmentation": [box(0, 0, 20, 20)]},
    ]  # fmt: skip
    for n, split in ((1, "train"), (2, "val")):
        write_image(root / f"{split}/{n:05}.jpg")
        images = [{"id": n, "file_name": f"{n:05}.jpg", "height": SIZE[0], "width": SIZE[1]}]
        annotations = [entry | {"id": i} for i, entry in enumerate(objects) if entry["image_id"] == n]
        categories = [{"id": 7, "name": "field"}, {"id": 3, "name": "dog"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        change(content)
        (root / f"{split}/_annotations.coco.json").write_text(json.dumps(content))
    return root


def coco_label() -> np.ndarray:
    """Of the first image of `coco_export`."""
    label = np.zeros(SIZE, np.uint8)
    label[6:34, 6:42], label[12:24, 12:24], label[30:] = 2, 1, 255
    return label


def shape(label: str, points: list, kind: str = "polygon", **more) -> dict:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme_export(root: Path, encoding: str = "utf-8", change: Callable = lambda content: None) -> Path:
    png = io.BytesIO()
    Image.fromarray(np.eye(5, dtype=np.uint8) * 255).save(png, "png")
    shapes = [
        shape("field", [[4, 2], [40, 2], [40, 30], [4, 30]]),
        shape("dog", [[20, 20], [10, 10]], "rectangle"),
        shape("ball", [[30, 20], [30, 25]], "circle"),
        shape("__ignore__", [[0, 33], [47, 35]], "rectangle"),
        shape("dog", [[41, 3], [45, 7]], "mask", mask=base64.b64encode(png.getvalue()).decode()),
        shape("path", [[0, 0], [9, 9]], "line"),
    ]
    for n in range(3):
        write_image(root / f"pictures/é{n}.jpg")
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"..\\pictures\\é{n}.jpg",
                   "imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1]}  # fmt: skip
        change(content)
        (root / "json").mkdir(exist_ok=True)
        (root / f"json/{n}.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    return root


def labelme_label() -> np.ndarray:
    """Classes background, ball, dog, field."""
    label = np.zeros(SIZE, np.uint8)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    label[2:31, 4:41] = 3
    label[10:21, 10:21] = 2
    label[(y - 20) ** 2 + (x - 30) ** 2 <= 5.5**2] = 1  # Pillow draws pixels that the circle touches
    label[33:36] = 255
    label[3:8, 41:46][np.eye(5, dtype=bool)] = 2
    return label


# Converters


def test_gray_masks_of_any_nesting_become_the_same_labels_and_train(tmp_path):
    root = gray_export(tmp_path / "data")
    (root / "masks/deep").mkdir()
    (root / "masks/0_mask.png").rename(root / "masks/deep/0-labels.png")
    (root / "masks/1_mask.png").rename(root / "masks/1.png")
    out = run(root, "--val", "0.34", "--seed", "7")
    labels = all_labels(out)
    assert len(labels) == 6 and len(labels_of(out, "val")) == 2
    assert all(np.array_equal(labels[str(n)], blocks(n)) for n in range(6))
    assert (out / "JPEGImages/3.jpg").read_bytes() == (root / "images/3.jpg").read_bytes()
    assert (out / "classes.txt").read_text().split() == NAMES
    assert {path.name for path in out.iterdir()} == {"JPEGImages", "SegmentationClass", "ImageSets", "classes.txt"}
    assert is_sound(out)
    status, _ = in_process(["--dataset", "folder", "--data-root", str(out)], tmp_path / "run", "--max-steps", "1")
    assert status == 0


@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_images_can_be_linked(link, tmp_path):
    root = gray_export(tmp_path / "data")
    image = run(root, "--val", "0.3", "--link", link) / "JPEGImages/0.jpg"
    assert image.samefile(root / "images/0.jpg") and image.is_symlink() == (link == "symbolic")


@pytest.mark.parametrize(("shift", "more"), [
    (lambda label: label + 1, ["--first-id", "1"]),
    (lambda label: label * 100, ["--values", "0", "100", "200"]),
    (lambda label: np.array([255, 128, 0], np.uint8)[label], ["--values", "255", "128", "0"]),
    (lambda label: label.astype(np.uint16), []),
    (lambda label: np.stack([label] * 3, -1), []),
    (lambda label: np.stack([label, np.full_like(label, 255)], -1), []),
    (lambda label: np.stack([label] * 3 + [np.full_like(label, 255)], -1), []),
])  # fmt: skip
def test_values_of_each_kind(shift, more, tmp_path):
    labels = all_labels(run(gray_export(tmp_path / "data", shift=shift), "--val", "0.5", *more))
    assert all(np.array_equal(labels[str(n)], blocks(n)) for n in range(6))


def test_declared_values_are_ignored(tmp_path):
    root = gray_export(tmp_path / "data", shift=lambda label: np.where(np.eye(*SIZE) > 0, 77, label).astype(np.uint8))
    write_mask(root / "masks/5_mask.png", np.full(SIZE, 255, np.uint8))
    labels = all_labels(run(root, "--val", "0.5", "--ignore", "77"))
    expected = [np.where(np.eye(*SIZE) > 0, 255, blocks(n)) for n in range(5)] + [np.full(SIZE, 255)]
    assert all(np.array_equal(labels[str(n)], label) for n, label in enumerate(expected))


def test_black_and_white_masks(tmp_path):
    root = gray_export(tmp_path / "data", shift=lambda label: (label > 0) * np.uint8(255))
    (root / "names.txt").write_text("no\nyes\n")
    labels = all_labels(run(root, "--val", "0.5", "--values", "0", "255"))
    assert all(np.array_equal(labels[str(n)], blocks(n) > 0) for n in range(6))


def test_colors_of_rgb_rgba_and_palette_masks(tmp_path):
    root = color_export(tmp_path / "data")
    Image.fromarray(colored(blocks(1))).quantize(5).save(root / "masks/1_mask.png")
    alpha = np.where(np.eye(*SIZE) > 0, 0, 255).astype(np.uint8)
    write_mask(root / "masks/2_mask.png", np.dstack([colored(blocks(2)), alpha]))
    write_mask(root / "masks/3_mask.png", colored(np.where(alpha, blocks(3), 255)))
    out = run(root, "--val", "0.5", "--ignore", "transparent", "255,255,255")
    labels = all_labels(out)
    for n in range(4):
        expected = blocks(n) if n < 2 else np.where(alpha, blocks(n), 255)
        assert np.array_equal(labels[str(n)], expected), n
    palette = Image.open(out / "SegmentationClass/0.png").getpalette()[:9]
    assert palette == [value for color in COLORS for value in color]
    assert class_names("folder", str(out)) == (tuple(NAMES), COLORS)


def test_colors_in_file_are_to_draw_with_if_values_are_given(tmp_path):
    """A folder dataset whose classes.txt has colors, and whose values begin at 1, can be mended."""
    root = gray_export(tmp_path / "data", shift=lambda label: label + 1)
    (root / "names.txt").write_text(color_rows())
    out = run(root, "--val", "0.5", "--first-id", "1")
    labels = all_labels(out)
    assert all(np.array_equal(labels[str(n)], blocks(n)) for n in range(6))
    assert class_names("folder", str(out)) == (tuple(NAMES), COLORS)


def test_colors_in_file_are_to_draw_with_for_shapes(tmp_path):
    root = labelme_export(tmp_path / "data")
    (root / "names.txt").write_text("_background_ 1 1 1\nfield 9 8 7\ndog 6 5 4\n")
    out = run(root, "--images", str(root / "pictures"), "--masks", str(root / "json"),
              "--classes", str(root / "names.txt"), "--unknown", "ignore", "--val", "0.5")  # fmt: skip
    assert class_names("folder", str(out)) == (("background", "field", "dog"), [(1, 1, 1), (9, 8, 7), (6, 5, 4)])


def test_anti_aliased_and_lossy_masks_with_the_nearest_color(tmp_path, capsys):
    def blurred(label):
        image = Image.fromarray(colored(label))
        return np.asarray(image.resize((96, 72)).resize(SIZE[::-1]))

    root = color_export(tmp_path / "data", paint=blurred)
    (root / "masks/3_mask.png").unlink()
    Image.fromarray(colored(blocks(3))).save(root / "masks/3_mask.jpg", quality=90)
    run(root, "--val", "0.5", status=2)
    out, err = capsys.readouterr()
    assert "1 masks are JPEG files" in out and "anti-aliased edges: give --unknown nearest" in out
    assert "and 1 more problems" in said(err)[-1]
    labels = all_labels(run(root, "--val", "0.5", "--unknown", "nearest"))
    assert all(np.mean(labels[str(n)] == blocks(n)) > 0.9 for n in range(4))
    assert "have a color of no class: --unknown nearest decides" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
    (root / "masks/3_mask.jpg").unlink()
    (root / "images/3.jpg").unlink()
    ignored = all_labels(run(root, "--val", "0.5", "--unknown", "ignore"))
    for n in range(3):
        assert (ignored[str(n)] == 255).any()
        assert np.all((ignored[str(n)] == 255) | (ignored[str(n)] == blocks(n)))


def test_cvat(tmp_path):
    out = run(cvat_export(tmp_path / "cvat"), "--images", str(tmp_path / "cvat"), "--val", "0.25")
    labels = all_labels(out)
    assert all(np.array_equal(labels[str(n)], blocks(n)) for n in range(4)) and is_sound(out)


def test_cvat_with_images_elsewhere(tmp_path):
    root = cvat_export(tmp_path / "cvat")
    (root / "JPEGImages").rename(tmp_path / "photos")
    out = run(root, "--images", str(tmp_path / "photos"), "--masks", f"{root}/SegmentationClass", "--val", "0.25")
    assert np.array_equal(all_labels(out)["3"], blocks(3))


def test_roboflow_keeps_its_splits(tmp_path):
    out = run(roboflow_export(tmp_path / "rf"), "--images", str(tmp_path / "rf"))
    for split, numbers in (("train", (0, 1)), ("val", (2,)), ("test", (3,))):
        labels = labels_of(out, split)
        assert list(labels) == [f"photo{n}_jpg.rf.0123abcd" for n in numbers]
        assert all(np.array_equal(label, blocks(n)) for label, n in zip(labels.values(), numbers, strict=True))
    assert is_sound(out)


def test_coco_with_its_own_categories(tmp_path):
    out = run(coco_export(tmp_path / "coco"), "--images", str(tmp_path / "coco"))
    assert (out / "classes.txt").read_text().split() == ["background", "dog", "field"]
    assert np.array_equal(labels_of(out, "train")["00001"], coco_label())
    second = labels_of(out, "val")["00002"]
    assert (second[:20, :20] == 2).all() and second.sum() == 2 * 400
    assert is_sound(out)


@pytest.mark.parametrize(("names", "more", "background", "dog", "field"), [
    ("background\nfield\ndog\n", [], 0, 2, 1),
    ("field\ndog\n", ["--ignore", "background"], 255, 1, 0),
    ("background\nfield\ndog\n", ["--ignore", "dog"], 0, 255, 1),
    ("background\nfield\n", ["--unknown", "background"], 0, 1, 1),  # the field under the dog
    ("background\nfield\n", ["--unknown", "ignore"], 0, 255, 1),
])  # fmt: skip
def test_coco_with_a_list_of_classes(names, more, background, dog, field, tmp_path):
    root = coco_export(tmp_path / "coco")
    (tmp_path / "names.txt").write_text(names)
    arguments = ["--images", str(root), "--masks", *map(str, root.glob("*/*.json"))]
    out = run(root, *arguments, "--classes", f"{tmp_path}/names.txt", *more)
    expected = np.array([background, dog, field, *[255] * 253], np.uint8)[coco_label()]
    assert np.array_equal(labels_of(out, "train")["00001"][:30], expected[:30])  # without the crowd of dogs


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labelme(encoding, tmp_path, capsys):
    root = labelme_export(tmp_path / "lm", encoding)
    out = run(root, "--images", f"{root}/pictures", "--masks", f"{root}/json", "--val", "0.34")
    assert (out / "classes.txt").read_text().split() == ["background", "ball", "dog", "field"]
    labels = all_labels(out)
    assert len(labels) == 3 and all(np.array_equal(label, labelme_label()) for label in labels.values())
    assert "3 shapes are a line without area" in capsys.readouterr().out


@pytest.mark.parametrize("orientation", range(2, 9))
def test_labelme_shapes_belong_to_the_upright_image(orientation, tmp_path):
    root = labelme_export(tmp_path / "lm")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for n in range(3):
        size = SIZE if orientation < 5 else SIZE[::-1]
        write_image(root / f"pictures/é{n}.jpg", size, exif=exif)
    out = run(root, "--images", f"{root}/pictures", "--masks", f"{root}/json", "--val", "0.34")
    data = build_dataset("folder", "train", root=str(out))
    image, label = data.read(0)
    upright = ImageOps.exif_transpose(Image.open(root / f"pictures/{data.ids[0]}.jpg"))
    assert np.array_equal(np.asarray(label), labelme_label())
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_camvid_in_colors_gives_back_its_labels(shared, tmp_path):
    camvid = shared / "data/camvid"
    table = np.array([*voc_palette(12)[1:], *[(0, 0, 0)] * 245], np.uint8)
    sources = sorted((camvid / "SegmentationClass").iterdir())[::20]
    for path in sources:
        write_mask(tmp_path / f"data/masks/{path.stem}_L.png", table[np.asarray(Image.open(path))])
        (tmp_path / "data/images").mkdir(exist_ok=True)
        (tmp_path / f"data/images/{path.stem}.jpg").symlink_to(camvid / f"JPEGImages/{path.stem}.jpg")
    names = (camvid / "classes.txt").read_text().split()
    rows = [f"{name} {' '.join(map(str, color))}\n" for name, color in zip(names, table[:11], strict=True)]
    (tmp_path / "data/names.txt").write_text("".join(rows))
    labels = all_labels(run(tmp_path / "data", "--val", "0.2", "--ignore", "0,0,0", "--link", "symbolic"))
    assert len(labels) == len(sources) > 20
    for path in sources:
        assert np.array_equal(labels[path.stem], np.asarray(Image.open(path)))


# Names and splits


def test_repeated_stems_match_by_folder_and_get_its_name(tmp_path):
    root = gray_export(tmp_path / "data")
    for n, city in enumerate(("bonn", "ulm")):
        write_image(root / f"images/{city}/x.jpg")
        write_mask(root / f"masks/{city}/x.png", blocks(10 + n))
    labels = all_labels(run(root, "--val", "0.25"))
    assert {*labels} == {*"012345", "bonn_x", "ulm_x"}
    assert np.array_equal(labels["bonn_x"], blocks(10)) and np.array_equal(labels["ulm_x"], blocks(11))


def test_repeated_stems_in_folders_of_splits(tmp_path):
    for n, split in enumerate(("train", "valid")):
        write_image(tmp_path / f"data/{split}/images/x.jpg")
        write_mask(tmp_path / f"data/{split}/labels/x.png", blocks(n))
    (tmp_path / "data/classes.txt").write_text("a\nb\nc\n")
    out = run(tmp_path / "data", "--images", f"{tmp_path}/data")
    assert [*labels_of(out, "train")] == ["train_x"] and np.array_equal(labels_of(out, "val")["valid_x"], blocks(1))


def test_one_folder_of_images_and_masks_with_endings_of_both(tmp_path):
    for n in range(4):
        write_image(tmp_path / f"data/{n}_sat.jpg")
        write_mask(tmp_path / f"data/{n}_truth.png", blocks(n))
        write_mask(tmp_path / f"data/{n}_color.png", colored(blocks(n)))
    (tmp_path / "data/classes.txt").write_text("a\nb\nc\n")
    more = ["--images", f"{tmp_path}/data", "--suffix", "_truth", "--image-suffix", "_sat", "--val", "0.5"]
    labels = all_labels(run(tmp_path / "data", *more))
    assert {*labels} == {*"0123"} and np.array_equal(labels["2"], blocks(2))


@pytest.mark.parametrize("place", ["ImageSets/Segmentation", "."])
def test_lists_of_the_source_are_its_splits(place, tmp_path):
    root = gray_export(tmp_path / "data")
    (root / place).mkdir(parents=True, exist_ok=True)
    (root / place / "train.txt").write_text("0\nimages/1.jpg\n2.jpg\n3\n")
    (root / place / "val.txt").write_text("4\n5\n")
    out = run(root)
    assert [*labels_of(out, "train")] == ["0", "1", "2", "3"] and [*labels_of(out, "val")] == ["4", "5"]


def test_a_new_split_leaves_test_alone(tmp_path):
    out = run(roboflow_export(tmp_path / "rf"), "--images", str(tmp_path / "rf"), "--val", "0.34")
    assert len(labels_of(out, "train")) == 2 and len(labels_of(out, "val")) == 1
    assert [*labels_of(out, "test")] == ["photo3_jpg.rf.0123abcd"]


def random_presence(seed: int, count: int = 60) -> tuple[list[str], np.ndarray]:
    """Ids, and classes from frequent to rare; each occurs."""
    random = np.random.default_rng(seed)
    presence = random.random((count, 6)) < [0.9, 0.6, 0.3, 0.15, 0.08, 0.05]
    presence[random.integers(0, count, 6), range(6)] = True
    return [f"image{n}" for n in range(count)], presence


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.8])
def test_split_is_stratified_exact_and_independent_of_the_order(share):
    for seed in range(20):
        ids, presence = random_presence(seed)
        is_val = stratify(ids, presence, share, 1)
        assert is_val.sum() == round(share * len(ids))
        assert presence[~is_val].any(0).all()  # every class trains
        frequent = presence.sum(0) >= 5 / share
        counts = presence[is_val].sum(0)
        assert (abs(counts - share * presence.sum(0))[frequent] <= 0.15 * presence.sum(0)[frequent] + 1).all()
        assert ((counts > 0) | (presence.sum(0) < 2 / share)).all()  # so do all but rare ones validate
        order = np.random.default_rng(seed).permutation(len(ids))
        assert np.array_equal(stratify([ids[n] for n in order], presence[order], share, 1), is_val[order])
    assert not np.array_equal(stratify(ids, presence, share, 2), is_val)


def test_split_of_images_without_a_class_in_common():
    is_val = stratify(list("abcdefghij"), np.eye(10, dtype=bool), 0.2, 1)
    assert is_val.sum() == 2
    assert stratify(list("ab"), np.zeros((2, 3), bool), 0.01, 1).sum() == 1


# Output


def test_dry_run_writes_nothing_and_reports(tmp_path, capsys):
    root = gray_export(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    run(root, "--val", "0.34", "--dry-run")
    out = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    train = out.split("train: 4 images, 0 problems")[1].split("val: 2 images")[0]
    assert "6 images, each with a mask" in out and train.count("33.33%") == 3 and "--val 0.34 with --seed 1" in out


def test_an_interrupted_convert_starts_again_and_finishes(tmp_path, monkeypatch):
    root, calls = gray_export(tmp_path / "data"), []

    def copy(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        Path(target).write_bytes(Path(source).read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy)
        out = run(root, "--val", "0.5", status=130)
    assert not out.exists() and (tmp_path / "out.unfinished").is_dir()
    run(root, "--val", "0.34", "--images", str(tmp_path), "--masks", f"{root}/masks", "--classes", f"{root}/names.txt")
    assert len(all_labels(out)) == 6 and not (tmp_path / "out.unfinished").exists()


def test_a_full_disk_ends_with_one_line_and_no_output(tmp_path, monkeypatch, capsys):
    def copy(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copy)
    out = run(gray_export(tmp_path / "data"), "--val", "0.5", status=2)
    assert "No space left on device): free space, or give another --out" in said(capsys.readouterr().err)[-1]
    assert not out.exists()


# Bad exports


class Bad(NamedTuple):
    """`damage(root)` changes a sound export, made by `make`; the error must contain `parts`, in this order."""

    name: str
    parts: tuple[str, ...]
    damage: Callable[[Path], object] = lambda root: None
    more: tuple[str, ...] = ("--val", "0.5")
    make: Callable[[Path], Path] = gray_export


def all_masks(change: Callable) -> Callable:
    """`change(label)` gives the pixels of each mask of `gray_export`."""
    return lambda root: gray_export(root, shift=change)


def save_over(name: str, pixels: np.ndarray) -> Callable:
    return lambda root: write_mask(root / name, pixels)


def cut(name: str) -> Callable:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-200])


def text(name: str, content: str | bytes) -> Callable:
    return lambda root: (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def add_copy(old: str, new: str) -> Callable:
    def damage(root: Path) -> None:
        (root / new).parent.mkdir(exist_ok=True)
        shutil.copy(root / old, root / new)

    return damage


def endings(root: Path) -> None:
    for path in root.glob("masks/*"):
        path.rename(path.with_name(path.name.replace("_mask", "_truth")))


def two_names(root: Path) -> None:
    all_masks(lambda label: (label > 0) * np.uint8(255))(root)
    (root / "names.txt").write_text("no\nyes\n")


def palettes(root: Path) -> None:
    for n, order in enumerate(((0, 1, 2), (2, 0, 1))):
        image = Image.fromarray(blocks(n))
        image.putpalette([value for k in order for value in COLORS[k]])
        image.save(root / f"masks/{n}_mask.png")


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_image(root / "images/0.jpg", exif=exif)
    save_over("masks/0_mask.png", np.zeros((40, 48), np.uint8))(root)


def many_colors(root: Path) -> None:
    for value in range(7):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        pixels[: value + 2] = (200, 100 + value, 7)
        write_mask(root / f"masks/{value % 4}_mask.png" if value < 4 else root / f"masks/{value}_mask.png", pixels)
        write_image(root / f"images/{value}.jpg")


JSON = ("--images", "ROOT", "--val", "0.5")
LABELME = ("--images", "ROOT/pictures", "--masks", "ROOT/json", "--val", "0.5")
BAD = [
    Bad("no images folder", ("--images", "nowhere does not exist", "give the folder"),
        more=("--images", "ROOT/nowhere")),
    Bad("no masks folder", ("--masks", "nowhere does not exist"), more=("--masks", "ROOT/nowhere")),
    Bad("masks are a text file", ("--masks", "names.txt is no JSON file"), more=("--masks", "ROOT/names.txt")),
    Bad("no FILE", ("no class list found", "labelmap.txt", "--classes FILE, one name (or `name r g b`"),
        more=("--images", "ROOT/images", "--masks", "ROOT/masks")),
    Bad("FILE missing", ("nowhere.txt is missing", "one name (or `name r g b`) a line"),
        more=("--classes", "ROOT/nowhere.txt")),
    Bad("FILE of one class", ("names.txt names 1 class", "not 'defect' as the first"), text("names.txt", "defect\n")),
    Bad("color for one class only", ("names.txt gives no color for 'b'", "in every line, or in none"),
        text("names.txt", "a 1 2 3\nb\n")),
    Bad("color above 255", ("gives 'a' the color 1,2,300", "0 to 255"), text("names.txt", "a 1 2 300\nb 1 1 1\n")),
    Bad("one color for two classes", ("'a' and 'b' both 1,2,3",), text("names.txt", "a 1 2 3\nb 1 2 3\n")),
    Bad("blank line in FILE", ("names.txt has a blank line 2",), text("names.txt", "a\n\nb\n")),
    Bad("FILE in UTF-16", ("names.txt cannot be read as text", "UTF-8"), text("names.txt", "a\nb".encode("utf-16"))),
    Bad("no line of a labelmap", ("labelmap.txt has the line 'a,b'", "label:r,g,b"), text("labelmap.txt", "a,b\n"),
        ("--classes", "ROOT/labelmap.txt")),
    Bad("no line of Roboflow's", ("_classes.csv has the line 'x, road'",),
        text("train/_classes.csv", "Pixel Value, Class\nx, road\n"), JSON, roboflow_export),
    Bad("two lists of classes", ("_classes.csv and ", "_classes.csv differ", "--classes FILE"),
        text("valid/_classes.csv", "Pixel Value, Class\n0, road\n1, x\n2, sky"), JSON, roboflow_export),
    Bad("nothing matches", ("no mask has the stem of an image", "such as 0.jpg", "0_truth.png", "--suffix _truth"),
        endings),
    Bad("no masks at all", ("no mask found", "such as", "--suffix TEXT"), lambda root: shutil.rmtree(root / "masks"),
        ("--masks", "ROOT/images", "--suffix", "_x")),
    Bad("image without mask", ("1 images have no mask: ", "images/2.jpg", "--skip-unmatched"),
        lambda root: (root / "masks/2_mask.png").unlink()),
    Bad("mask without image", ("1 masks have no image: ", "masks/2_mask.png", "--skip-unmatched"),
        lambda root: (root / "images/2.jpg").unlink()),
    Bad("two masks of an image", ("masks/2.png and ", "2_mask.png both fit", "images/2.jpg", "--suffix"),
        add_copy("masks/1_mask.png", "masks/2.png")),
    Bad("two images of a stem", ("2.jpg and ", "2.png have one stem", "rename"),
        add_copy("images/1.jpg", "images/2.png")),
    Bad("two images of an id", ("both have the id a_x", "rename"),
        lambda root: [add_copy("images/1.jpg", f"images/{name}.jpg")(root) for name in ("a/x", "b/x", "a_x")]
        + [add_copy("masks/1_mask.png", f"masks/{name}.png")(root) for name in ("a/x", "b/x", "a_x")]),
    Bad("truncated image", ("images/3.jpg cannot be read as an image", "replace it"), cut("images/3.jpg")),
    Bad("truncated mask", ("masks/3_mask.png cannot be read as an image",),
        lambda root: (root / "masks/3_mask.png").write_bytes((root / "masks/3_mask.png").read_bytes()[:40])),
    Bad("16-bit image", ("images/0.png has more than 8 bits",),
        lambda root: [(root / "images/0.jpg").unlink(), write_mask(root / "images/0.png", np.ones(SIZE, np.uint16))]),
    Bad("mask of another size", ("masks/1_mask.png is 24x20", "images/1.jpg is 48x36", "one size"),
        save_over("masks/1_mask.png", np.zeros((20, 24), np.uint8))),
    Bad("mask of neither size of a turned image", ("0_mask.png is 48x40", "0.jpg is 36x48"), turned),
    Bad("ids from 1", ("no class for 1 of the masks' values: 3 (", "pixels in 6 masks, such as", "0_mask.png",
                       "give --first-id 1 if"), all_masks(lambda label: label + 1)),
    Bad("ids from 1 and 0", ("give --first-id 1 --ignore 0 if",),
        lambda root: [all_masks(lambda label: label + 1)(root),
                      save_over("masks/0_mask.png", blocks(0, (0, 1, 2, 3)))(root)]),
    Bad("0 and 255", ("only 0 and 255", "--values 0 255", "'yes'"), two_names),
    Bad("0 and 128 and 255", ("no class for 1 of", "give --values 0 128 255 if"),
        lambda root: [all_masks(lambda label: label * 128)(root), save_over("masks/0_mask.png",
                      blocks(0, (0, 128, 255)))(root), save_over("names.txt.png", blocks(0))(root)]),
    Bad("value of no class", ("no class for 1 of", "9 (144 pixels in 1 masks, such as", "add the class", "--ignore 9"),
        save_over("masks/1_mask.png", np.where(blocks(1, range(12)) == 0, 9, blocks(1)))),
    Bad("palettes that differ", ("is the color", "0_mask.png and ", "1_mask.png", "name r g b", "--values"), palettes),
    Bad("colors without FILE's", ("6 masks hold colors, but", "names.txt has none", "name r g b", "128,64,128"),
        all_masks(colored)),
    Bad("unknown colors", ("no class for 7 of the masks' colors: ", "200,106,7 (384 pixels in 1 masks", "and 2 more",
                           "--ignore 200,106,7"), many_colors, make=color_export),
    Bad("class numbers with colors in FILE", ("no class for 2 of", "masks hold class numbers", "FILE without colors",
        "--values"),
        lambda root: [write_mask(root / f"masks/{n}_mask.png", blocks(n)) for n in range(4)], make=color_export),
    Bad("transparent pixels", ("transparent (", "--ignore transparent"),
        save_over("masks/1_mask.png", np.dstack([blocks(1)] * 2)), make=gray_export),
    Bad("JPEG masks", ("1 masks are JPEG files", "lossy", "--unknown nearest"),
        lambda root: [(root / "masks/1_mask.png").unlink(), write_mask(root / "masks/1_mask.jpg", blocks(1))]),
    Bad("16-bit mask", ("0_mask.png is a 16-bit mask with values from 0 to 900", "8 bits"),
        save_over("masks/0_mask.png", blocks(0).astype(np.uint16) * 450)),
    Bad("nearest without colors", ("--unknown nearest needs colors",), more=("--val", "0.5", "--unknown", "nearest")),
    Bad("--ignore of a class", ("--ignore 1 is the class 'road'",), more=("--ignore", "1")),
    Bad("--ignore of no value", ("--ignore road: give a value",), more=("--ignore", "road")),
    Bad("--ignore of a color for values", ("--ignore 1,2,3 is a color", "names.txt has no colors"),
        more=("--ignore", "1,2,3")),
    Bad("--values of another number", ("--values 0 255: give one value for each of the 3 classes",),
        more=("--values", "0", "255")),
    Bad("--values for colors", ("4 masks hold colors: ", "--first-id are for masks of values, leave them out"),
        more=("--first-id", "1"), make=color_export),
    Bad("--val of 1", ("'1' is not a number between 0 and 1",), more=("--val", "1")),
    Bad("no split", ("no split found", "--val 0.2"), more=()),
    Bad("no val", ("no image is in the split val", "--val 0.2"), lambda root: shutil.rmtree(root / "valid"),
        ("--images", "ROOT"), roboflow_export),
    Bad("image of no split", ("1 images are in no split: 5", "--val 0.2"),
        lambda root: [text("train.txt", "0\n1\n2\n")(root), text("val.txt", "3\n4\n")(root)], ()),
    Bad("output is not empty", ("data exists and is not empty", "another --out"), more=("--out", "ROOT")),
    Bad("output of somebody else", ("out.unfinished exists", "remove it"),
        lambda root: (root.parent / "out.unfinished").mkdir()),
    Bad("truncated JSON", ("_annotations.coco.json is not a complete JSON file",), cut("train/_annotations.coco.json"),
        JSON, coco_export),
    Bad("JSON in Latin-1", ("0.json cannot be read as text", "save it in UTF-8"), more=LABELME,
        make=lambda root: labelme_export(root, "latin-1")),
    Bad("other JSON", ("0.json is neither COCO", "nor labelme", "--masks"), more=LABELME,
        make=lambda root: labelme_export(root, change=lambda content: content.pop("shapes"))),
    Bad("--values with JSON", ("--values and --first-id are for masks",), more=(*JSON, "--first-id", "1"),
        make=coco_export),
    Bad("category not in FILE", ("1 names of ", "are no class of", "dog (2 objects)", "--ignore NAME", "--unknown"),
        text("few.txt", "background\nfield\n"), (*JSON, "--classes", "ROOT/few.txt"), coco_export),
    Bad("FILE without background", ("few.txt has no background as class 0", "--ignore background"),
        text("few.txt", "field\ndog\n"), (*JSON, "--classes", "ROOT/few.txt"), coco_export),
    Bad("--ignore of no category", ("--ignore cat: ", "has no such name; it has dog, field"),
        more=(*JSON, "--ignore", "cat"), make=coco_export),
    Bad("categories that differ", ("calls category 3", "separately"), lambda root: text(
        "val/_annotations.coco.json", (root / "val/_annotations.coco.json").read_text().replace("dog", "cat"))(root),
        JSON, coco_export),
    Bad("boxes without outlines", ("is neither polygons nor run lengths",), more=JSON, make=lambda root: coco_export(
        root, lambda content: [entry.update(segmentation=[]) for entry in content["annotations"]])),
    Bad("listed image missing", ("1 COCO annotations have no image", "00002.jpg", "--skip-unmatched"),
        lambda root: (root / "val/00002.jpg").unlink(), JSON, coco_export),
    Bad("image that no JSON lists", ("1 images have no COCO annotation", "x.jpg"),
        lambda root: write_image(root / "val/x.jpg"), JSON, coco_export),
    Bad("COCO of other sizes", ("is 48x36 but its image", "is 9x9", "one size"),
        lambda root: write_image(root / "val/00002.jpg", (9, 9)), JSON, coco_export),
    Bad("labelme without size", ("0.json has no imageHeight",), more=LABELME,
        make=lambda root: labelme_export(root, change=lambda content: content.pop("imageHeight"))),
    Bad("labelme polygon of two points", ("0.json has a shape that is a polygon 'field' of too few points",),
        more=LABELME, make=lambda root: labelme_export(
            root, change=lambda content: content.update(shapes=[shape("field", [[1, 2], [3, 4]])]))),
    Bad("labelme point of text", ("a polygon 'field' with points that are not two coordinates",), more=LABELME,
        make=lambda root: labelme_export(
            root, change=lambda content: content.update(shapes=[shape("field", [["a", 2]] * 3)]))),
    Bad("labelme mask that is no PNG", ("0.json has a mask of 'dog' that is no PNG",), more=LABELME,
        make=lambda root: labelme_export(
            root, change=lambda content: content.update(shapes=[shape("dog", [[1, 2], [3, 4]], "mask", mask="x")]))),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_exports_end_with_one_line_and_nothing_written(case, tmp_path, capsys):
    root = case.make(tmp_path / "data")
    case.damage(root)
    before = sorted(tmp_path.rglob("*"))
    more = [word.replace("ROOT", str(root)) for word in case.more]
    given = [] if "--images" in more else flags(root)
    try:
        status = convert.main(["--out", f"{tmp_path}/out", *given, *more])
    except SystemExit as stop:  # raised by argparse
        status = stop.code
    lines = said(capsys.readouterr().err)
    errors = [line for line in lines if not line.startswith("reading")]
    assert status == 2 and len(errors) == 1 and contains(errors[0], ("error: ", *case.parts)), lines
    assert sorted(tmp_path.rglob("*")) == before


def test_all_problems_are_listed(tmp_path, capsys):
    root = gray_export(tmp_path / "data")
    cut("images/3.jpg")(root)
    save_over("masks/1_mask.png", np.zeros((20, 24), np.uint8))(root)
    save_over("masks/2_mask.png", colored(blocks(2)))(root)
    run(root, "--val", "0.5", status=2)
    out, err = capsys.readouterr()
    problems = [line for line in out.splitlines() if line.startswith("problem: ")]
    for part in ("2_mask.png: write `name r g b`", "1_mask.png is 24x20", "3.jpg cannot be read"):
        assert sum(part in problem for problem in problems) == 1, problems
    assert len(problems) == 3 and "and 2 more problems" in said(err)[-1]


def test_files_without_a_partner_can_be_left_out(tmp_path):
    root = gray_export(tmp_path / "data")
    (root / "images/2.jpg").unlink()
    (root / "masks/3_mask.png").unlink()
    assert {*all_labels(run(root, "--val", "0.5", "--skip-unmatched"))} == {*"0145"}


# The layout itself


@pytest.mark.parametrize("lists", ["ImageSets/Segmentation", "."])
def test_folder_takes_images_and_masks(lists, tmp_path):
    root = gray_export(tmp_path / "data")
    for path in root.glob("masks/*"):
        path.rename(path.with_name(path.name.replace("_mask", "")))
    (root / "names.txt").rename(root / "classes.txt")
    (root / lists).mkdir(parents=True, exist_ok=True)
    (root / lists / "train.txt").write_text("0\n1\n2\n3\n")
    (root / lists / "val.txt").write_text("4\n5\n")
    assert is_sound(root)
    assert np.array_equal(labels_of(root, "val")["5"], blocks(5))


def voc_layout(root: Path) -> None:
    """`gray_export` in VOC's layout with lists."""
    for path in root.glob("masks/*"):
        path.rename(path.with_name(path.name.replace("_mask", "")))
    for old, new in (("images", "JPEGImages"), ("masks", "SegmentationClass"), ("names.txt", "classes.txt")):
        (root / old).rename(root / new)
    text("train.txt", "0\n1\n2\n3\n")(root)
    text("val.txt", "4\n5\n")(root)


def repaint(change: Callable) -> Callable:
    return lambda root: [write_mask(root / f"SegmentationClass/{n}.png", change(blocks(n))) for n in range(6)]


def two_classes(root: Path) -> None:
    repaint(lambda label: (label > 0) * np.uint8(255))(root)
    text("classes.txt", "no\nyes\n")(root)


def mask_endings(root: Path) -> None:
    for path in root.glob("SegmentationClass/*"):
        path.rename(path.with_name(f"{path.stem}_mask.png"))


@pytest.mark.parametrize(("damage", "wanted"), [
    (repaint(colored), "--classes FILE"),
    (repaint(lambda label: label + 1), "--first-id 1"),
    (two_classes, "--values 0 255"),
    (lambda root: [(root / "train.txt").unlink(), (root / "val.txt").unlink()], "--val 0.2"),
    (lambda root: (root / "classes.txt").unlink(), "--classes FILE"),
    (mask_endings, "--images"),
    (lambda root: (root / "SegmentationClass").rename(root / "labels"), "--images"),
])  # fmt: skip
def test_check_names_the_convert_command_that_mends(damage, wanted, tmp_path, capsys):
    root = gray_export(tmp_path / "data")
    voc_layout(root)
    damage(root)
    assert not is_sound(root)
    line = next(line for line in capsys.readouterr().out.splitlines() if "dataloaders.convert --images" in line)
    command = line.split("dataloaders.convert ")[1].split(" (FILE")[0]
    assert wanted in command and "--dry-run" in command
    (tmp_path / "FILE").write_text(color_rows() if "`name r g b` a line" in line else "\n".join(NAMES))
    words = [word.replace("FILE", f"{tmp_path}/FILE") for word in shlex.split(command) if word != "--dry-run"]
    assert convert.main(words) == 0
    assert is_sound(Path(f"{root}-converted"))


def test_check_names_no_convert_command_for_other_problems(tmp_path, capsys):
    root = gray_export(tmp_path / "data")
    voc_layout(root)
    cut("JPEGImages/3.jpg")(root)
    save_label(np.zeros((9, 9), np.uint8), root / "SegmentationClass/1.png")
    assert not is_sound(root) and "dataloaders.convert" not in capsys.readouterr().out
