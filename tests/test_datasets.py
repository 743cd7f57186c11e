"""What each dataset reads, against files whose content is known."""

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_data import box, coco_object, save_label

from dataloaders import build_dataset, coco_index
from dataloaders.cityscapes import TRAIN_IDS
from dataloaders.demo import draw_scene
from dataloaders.strings import Paths, Strings
from utils.errors import UserError
from utils.palettes import CITYSCAPES_PALETTE, VOC_CLASSES, voc_palette


def stored(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_voc_palette():
    palette = voc_palette(21)
    assert palette[0] == (0, 0, 0) and palette[1] == (128, 0, 0) and palette[12] == (64, 0, 128)
    assert palette[15] == (192, 128, 128) and palette[20] == (0, 64, 128)


def test_cityscapes_ids_and_palette():
    valid = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert [TRAIN_IDS[value] for value in valid] == list(range(19))
    assert {TRAIN_IDS[value] for value in set(range(256)) - set(valid)} == {255}
    assert CITYSCAPES_PALETTE[10] == (70, 130, 180)


def test_voc_reads_images_and_class_numbers(voc_root):
    voc = build_dataset("pascal", "train", root=str(voc_root))
    assert voc.ids == [f"t{n}" for n in range(6)] and voc.classes == VOC_CLASSES
    image, label = voc.read(2)
    assert image.mode == "RGB" and image.size == label.size == (48, 36)
    assert np.array_equal(np.asarray(label), stored(voc_root / "SegmentationClass/t2.png"))


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_root_of_voc_may_be_a_devkit_above_it(voc_root, tmp_path, above):
    root = tmp_path / "somewhere"
    (root / above).parent.mkdir(parents=True, exist_ok=True)
    voc_root.rename(root / above if above else root)
    assert len(build_dataset("pascal", "val", root=str(root))) == 3


def test_root_is_the_argument_then_the_environment_then_mypath(voc_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_PASCAL_ROOT", str(voc_root))
    assert len(build_dataset("pascal", "train")) == 6
    with pytest.raises(UserError, match=r"/nowhere/JPEGImages .*--data-root DIR.*DEEPLAB_PASCAL_ROOT.*mypath\.py"):
        build_dataset("pascal", "train", root="/nowhere")


def test_sbd_adds_no_id_of_voc_val_and_vocs_label_wins(voc_root, sbd_root):
    union = build_dataset("pascal", "train", root=str(voc_root), use_sbd=True, sbd_root=str(sbd_root))
    val = build_dataset("pascal", "val", root=str(voc_root), use_sbd=True, sbd_root=str(sbd_root))
    assert union.ids == [f"t{n}" for n in range(6)] + ["s0", "s1"]
    assert val.ids == ["v0", "v1", "v2"]
    label = union.read(0)[1]
    assert np.array_equal(np.asarray(label), stored(voc_root / "SegmentationClass/t0.png"))
    image, label = union.read(7)
    assert image.size == label.size and np.asarray(label).max() < 21
    assert union.label_digest(6) != union.label_digest(7)


def test_folder_reads_its_classes_from_a_file(folder_root):
    data = build_dataset("folder", "train", root=str(folder_root))
    assert data.classes == ("ground", "wall", "sky") and data.ids[1] == "t.1"
    assert set(np.unique(data.read(1)[1])) <= {0, 1, 2, 255}


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".png", ".tif", ".webp"])
def test_folder_reads_usual_image_formats(folder_root, ending):
    old = folder_root / "JPEGImages/t.0.jpg"
    Image.open(old).save(folder_root / f"JPEGImages/t.0{ending}")
    old.unlink() if ending != ".jpg" else None
    assert build_dataset("folder", "train", root=str(folder_root)).read(0)[0].size == (48, 36)


def test_lists_may_have_windows_line_ends_and_blank_lines_at_the_end(folder_root):
    (folder_root / "ImageSets/Segmentation/val.txt").write_bytes(b"v.0\r\n\r\nv.1  \r\n\r\n")
    (folder_root / "classes.txt").write_bytes(b"ground\r\nwall\r\nsky\r\n\r\n")
    data = build_dataset("folder", "val", root=str(folder_root))
    assert data.ids == ["v.0", "v.1"] and data.classes == ("ground", "wall", "sky")


def test_cityscapes_maps_label_ids_to_classes(cityscapes_root):
    data = build_dataset("cityscapes", "train", root=str(cityscapes_root))
    assert len(data) == 4 and len(data.classes) == 19
    raw = stored(data.label_path(1))
    assert np.array_equal(np.asarray(data.read(1)[1]), np.array(TRAIN_IDS)[raw])


class TestCOCO:
    def test_training_keeps_images_with_enough_pixels_and_validation_keeps_all(self, coco_root):
        train = build_dataset("coco", "train", root=str(coco_root))
        val = build_dataset("coco", "val", root=str(coco_root))
        assert [int(key) for key in train.ids] == [1, 4, 5]  # 400 pixels of cat and a giraffe are not enough
        assert [int(key) for key in val.ids] == [1, 2, 3, 4, 5]

    def test_overlaps_and_crowds_are_ignored(self, coco_root):
        label = np.asarray(build_dataset("coco", "train", root=str(coco_root)).read(0)[1])
        expected = np.zeros((80, 100), np.uint8)
        expected[10:60, 10:60], expected[40:65, 40:90] = 15, 12
        expected[40:60, 40:60] = 255  # person over dog
        expected[70:] = 255  # the crowd
        # polygons are drawn to half a pixel
        inner = np.ones_like(expected, bool)
        for edge in (10, 60, 40, 65, 90, 70):
            inner[max(0, edge - 1) : edge + 2], inner[:, max(0, edge - 1) : edge + 2] = False, False
        assert np.array_equal(label[inner], expected[inner])

    def test_other_categories_are_not_drawn(self, coco_root):
        label = build_dataset("coco", "val", root=str(coco_root)).read(2)[1]
        assert np.asarray(label).max() == 0

    def test_overlap_within_a_class_keeps_the_class(self, coco_root):
        path = coco_root / "annotations/instances_val2017.json"
        content = json.loads(path.read_text())
        twice = [coco_object(2, 17, [box(0, 0, 50, 50)]), coco_object(2, 17, [box(20, 20, 70, 70)])]
        content["annotations"] = [entry | {"id": number} for number, entry in enumerate(twice)]
        path.write_text(json.dumps(content))
        label = np.asarray(build_dataset("coco", "val", root=str(coco_root)).read(1)[1])
        assert set(np.unique(label)) == {0, 8}

    def test_callers_at_the_same_time_draw_the_labels_once(self, coco_root, monkeypatch):
        calls, original = [], coco_index.write_index
        monkeypatch.setattr(coco_index, "write_index", lambda *given: calls.append(1) or original(*given))
        before = sorted(coco_root.rglob("*"))
        results = []
        build = lambda: results.append(build_dataset("coco", "train", root=str(coco_root)).ids)  # noqa: E731
        threads = [threading.Thread(target=build) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1 and len(results) == 4 and all(ids == results[0] for ids in results)
        assert sorted(coco_root.rglob("*")) == before
        path = coco_root / "annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        content["annotations"] = content["annotations"][:3]
        path.write_text(json.dumps(content))
        assert len(build_dataset("coco", "train", root=str(coco_root))) == 1  # the content changed: drawn anew

    def test_folders_of_images_may_be_below_images(self, coco_root):
        (coco_root / "images").mkdir()
        (coco_root / "val2017").rename(coco_root / "images/val2017")
        assert build_dataset("coco", "val", root=str(coco_root)).read(0)[0].size == (100, 80)


def test_strings_and_paths_are_those_that_were_set():
    values = ["a.b", "", "ä/\udc80\ud800", "x" * 300]
    for strings in (Strings(values), pickle.loads(pickle.dumps(Strings(values)))):
        assert strings == values and strings[-1] == values[-1] and strings[1:3] == values[1:3] and len(strings) == 4
        assert strings != values[:3] and strings.index("x" * 300) == 3 and "b" not in strings
        with pytest.raises(IndexError):
            strings[4]
    assert list(Paths([Path("a/b.png"), None, "c"])) == [Path("a/b.png"), None, Path("c")] and not Strings([])


def test_no_dataset_keeps_a_python_object_for_each_image(
    voc_root, sbd_root, cityscapes_root, coco_root, ade20k_root, context_root, folder_root
):
    """A data worker copies the page of each object that it looks at."""
    roots = {"cityscapes": cityscapes_root, "coco": coco_root, "ade20k": ade20k_root, "context": context_root}
    roots |= {"folder": folder_root, "pascal": voc_root}
    built = [build_dataset(name, "train", root=str(root)) for name, root in roots.items()]
    built.append(build_dataset("pascal", "train", root=str(voc_root), use_sbd=True, sbd_root=str(sbd_root)))
    for data in built:
        data.read(0)
        found = {name: value for name, value in vars(data).items() if isinstance(value, list | tuple | dict | set)}
        large = {name for name, value in found.items() if len(value) >= len(data)} - {"classes", "palette"}
        assert not large, data.name


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied_to_image_and_label(folder_root, orientation):
    """The label has the stored size of the image, so it is turned too."""
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (30, 50), dtype=np.uint8)
    raw = Image.fromarray(np.repeat(label[..., None] * 100, 3, -1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw.save(folder_root / "JPEGImages/t.0.png", exif=exif)
    (folder_root / "JPEGImages/t.0.jpg").unlink()
    save_label(label, folder_root / "SegmentationClass/t.0.png")
    image, upright_label = build_dataset("folder", "train", root=str(folder_root)).read(0)
    assert image.size == upright_label.size == ((50, 30) if orientation < 5 else (30, 50))
    assert np.array_equal(np.asarray(image)[..., 0], np.asarray(upright_label) * 100)
    upright = ImageOps.exif_transpose(Image.open(folder_root / "JPEGImages/t.0.png"))
    assert np.array_equal(np.asarray(upright), np.asarray(image))


def test_a_label_that_is_upright_already_stays(folder_root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 30)).save(folder_root / "JPEGImages/t.0.jpg", exif=exif)
    label = np.zeros((50, 30), np.uint8)
    label[:10] = 2
    save_label(label, folder_root / "SegmentationClass/t.0.png")
    assert np.array_equal(np.asarray(build_dataset("folder", "train", root=str(folder_root)).read(0)[1]), label)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA"])
def test_images_of_any_mode_become_rgb(folder_root, mode):
    (folder_root / "JPEGImages/t.0.jpg").unlink()
    Image.new(mode, (48, 36)).save(folder_root / "JPEGImages/t.0.tif")
    assert build_dataset("folder", "train", root=str(folder_root)).read(0)[0].mode == "RGB"


def test_one_label_with_the_second_class_allows_others_of_0_and_255(folder_root):
    """Without it, 255 is taken for a mistaken second class: see test_bad_input.py."""
    (folder_root / "classes.txt").write_text("no\nyes\n")
    for path in (folder_root / "SegmentationClass").iterdir():
        save_label(np.where(np.eye(36, 48) > 0, 255, 0).astype(np.uint8), path)
    save_label(np.eye(36, 48, dtype=np.uint8), folder_root / "SegmentationClass/t.5.png")
    assert len(build_dataset("folder", "train", root=str(folder_root))) == 6


def test_unknown_dataset_names_the_choices():
    with pytest.raises(UserError, match="choose one of pascal, cityscapes, coco, ade20k, context, folder, demo"):
        build_dataset("ade", "train")


class TestDemo:
    def test_samples_are_the_same_each_time(self):
        one, two = (build_dataset("demo", "train").read(5) for _ in range(2))
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
        assert not np.array_equal(one[0], build_dataset("demo", "val").read(5)[0])

    def test_all_classes_occur_and_small_ones_are_rare(self):
        data = build_dataset("demo", "train")
        labels = np.stack([np.asarray(data.read(index)[1]) for index in range(60)])
        shares = np.bincount(labels.ravel(), minlength=8) / labels.size
        assert len(data.classes) == 8 and (shares > 0).all()
        assert shares[data.classes.index("dot")] < 0.02 and shares[data.classes.index("bar")] < 0.05

    def test_a_larger_scene_has_as_many_shapes_for_its_area(self):
        small = [draw_scene(np.random.default_rng(n))[1] for n in range(48)]
        image, label = draw_scene(np.random.default_rng(0), width=960, height=640)
        assert image.shape == (640, 960, 3) and label.shape == (640, 960) and set(np.unique(label)) == set(range(8))
        assert 0.5 < (label > 0).mean() / np.mean([(one > 0).mean() for one in small]) < 2
        assert all((quarter > 0).mean() > 0.05 for half in np.split(label, 2) for quarter in np.split(half, 2, axis=1))

    def test_no_file_is_written(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        build_dataset("demo", "val").read(0)
        assert list(tmp_path.iterdir()) == []
