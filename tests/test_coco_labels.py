"""COCO's labels: drawn once into the cache, equal to pixelwise drawing, shared by processes, safe when killed."""

import json
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from running import begin, end
from sample_data import box, coco_object, run_lengths

from dataloaders import build_dataset
from dataloaders.checks.annotations import outline_problem
from dataloaders.coco_index import CATEGORIES, CLASS_OF
from dataloaders.coco_labels import decode_runs, draw_runs
from utils.errors import UserError


def pixelwise(objects: list[tuple], height: int, width: int) -> np.ndarray:
    """The label by the definition in docs/data.md: one mask of pycocotools after the other."""
    label, crowd = np.zeros((height, width), np.uint8), np.zeros((height, width), bool)
    for number, is_crowd, outline in objects:
        is_packed = isinstance(outline, dict) and not isinstance(outline["counts"], list)
        found = outline if is_packed else mask_tools.frPyObjects(outline, height, width)
        mask = mask_tools.decode(mask_tools.merge(found) if isinstance(found, list) else found).astype(bool)
        if is_crowd:
            crowd |= mask
            continue
        overlap = mask & (label != 0) & (label != number)
        label[mask] = number
        label[overlap] = 255
    label[crowd] = 255
    return label


def random_outline(random: np.random.Generator, height: int, width: int) -> list | dict:
    kind = random.integers(5)
    if kind < 3:  # polygons, also outside of the image, of one point, and with corners on pixels
        center, radius = random.uniform(-20, (width + 20, height + 20), (3, 1, 2)), random.uniform(0, 50, (3, 1, 1))
        polygons = center + radius * random.normal(size=(3, random.integers(3, 12), 2))
        polygons = polygons.round() if kind == 0 else polygons
        return [polygon.ravel().tolist() for polygon in polygons[: random.integers(1, 4)]]
    mask = random.random((height, width)) < random.choice([0, 0.02, 0.5, 1])
    if kind == 4:
        mask = np.repeat(np.repeat(mask[::9, ::9], 9, 0), 9, 1)[:height, :width]
    if random.random() < 0.5:
        return {"size": [height, width], "counts": run_lengths(mask.astype(np.uint8))}
    packed = mask_tools.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [height, width], "counts": packed["counts"].decode()}


def random_objects(random: np.random.Generator) -> tuple[list[tuple], int, int]:
    height, width = (int(side) for side in random.choice([1, 2, 7, 50, 64, 120], 2))
    classes = random.choice(20, random.integers(1, 5)) + 1  # few, so that objects of one class overlap too
    objects = [
        (int(random.choice(classes)), bool(random.random() < 0.15), random_outline(random, height, width))
        for _ in range(random.integers(0, 8))
    ]
    return objects, height, width


def test_labels_equal_pixelwise_drawing():
    random = np.random.default_rng(0)
    for _ in range(150):
        objects, height, width = random_objects(random)
        assert not any(outline_problem(outline, height, width) for _, _, outline in objects)
        runs, pixels = draw_runs(objects, height, width)
        label = decode_runs(runs, height, width)
        assert np.array_equal(label, pixelwise(objects, height, width)) and label.flags.c_contiguous
        assert pixels == np.isin(label, range(1, 21)).sum()


def test_a_run_may_be_longer_than_its_code_holds():
    objects = [(7, False, [box(1000, -5, 1002, 3000)])]
    label = decode_runs(draw_runs(objects, 3000, 2000)[0], 3000, 2000)
    assert np.array_equal(label, pixelwise(objects, 3000, 2000)) and (label == 7).sum() == 6000


def write_annotations(path: Path, num_images: int, *, repeats: int = 1, seed: int = 0) -> dict[int, tuple]:
    """An annotation file of random objects, and (objects, height, width) of each image."""
    random, images, objects, expected = np.random.default_rng(seed), [], [], {}
    for image_id in random.permutation(np.arange(1, num_images + 1) * 7).tolist():
        chosen, height, width = random_objects(random)
        chosen = chosen * repeats
        expected[image_id] = chosen, height, width
        images.append({"id": image_id, "file_name": f"{image_id:012d}.jpg", "height": height, "width": width})
        for number, is_crowd, outline in [*chosen, (0, False, [box(0, 0, 9, 9)])]:
            category = CATEGORIES[number - 1] if number else 25  # a giraffe is not drawn
            objects.append(coco_object(image_id, category, outline, int(is_crowd)) | {"bbox": [0, 0, 1, 1]})
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": category, "name": str(category)} for category in (*CLASS_OF, 25)]
    order = random.permutation(len(objects))
    annotations = sorted((objects[place] for place in order), key=lambda entry: entry["image_id"] % 3)
    by_image = {key: iter([one for one in objects if one["image_id"] == key]) for key in expected}
    annotations = [next(by_image[entry["image_id"]]) for entry in annotations]  # each image's in their order
    path.write_text(json.dumps({"annotations": annotations, "images": images, "categories": categories}))
    return expected


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_data_set_holds_the_labels_of_the_file(processes, tmp_path, monkeypatch):
    monkeypatch.setattr("dataloaders.coco_index.num_processes", lambda _: processes)
    monkeypatch.setattr("dataloaders.coco_index.CHUNK", 7)
    expected = write_annotations(tmp_path / "annotations/instances_val2017.json", 60)
    (tmp_path / "val2017").mkdir()
    for image_id in expected:
        (tmp_path / f"val2017/{image_id:012d}.jpg").touch()
    first, again = (build_dataset("coco", "val", root=str(tmp_path)) for _ in range(2))
    for data in (first, again, pickle.loads(pickle.dumps(first))):
        assert data.ids == [f"{image_id:012d}" for image_id in sorted(expected)]
        assert data.image_path(3) == tmp_path / f"val2017/{data.ids[3]}.jpg"
        for index, image_id in enumerate(sorted(expected)):
            assert np.array_equal(np.asarray(data.open_label(index)), pixelwise(*expected[image_id]))
            assert f"(image {image_id})" in data.describe_label(index)


def test_invalid_objects_are_reported_before_drawing_and_again_from_the_cache(coco_root, draws):
    path = coco_root / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [["a"] * 6]
    content["annotations"][5]["segmentation"] = [[1e9] * 6]
    path.write_text(json.dumps(content))
    for _ in range(2):
        with pytest.raises(UserError, match=r"has an outline in image 1 .*; and 1 more"):
            build_dataset("coco", "val", root=str(coco_root))
    assert not list(cache().glob("*.labels"))
    for _ in range(2):
        problems: list[str] = []
        build_dataset("coco", "val", root=str(coco_root), report=problems.extend)
        assert [str(path) in problem for problem in problems] == [True, True]
    with pytest.raises(UserError, match=r"has an outline in image 1 .*; and 1 more"):
        build_dataset("coco", "val", root=str(coco_root))
    assert len(draws) == 3


@pytest.fixture
def draws(monkeypatch) -> list:
    """An entry for each drawing of all labels."""
    import dataloaders.coco_index as module

    calls, original = [], module.write_index
    monkeypatch.setattr(module, "write_index", lambda *given: calls.append(given) or original(*given))
    return calls


def cache() -> Path:
    return Path(os.environ["DEEPLAB_CACHE"])


def test_labels_are_drawn_again_if_the_file_changes_or_the_cache_is_cut(coco_root, draws):
    path = coco_root / "annotations/instances_val2017.json"
    build = lambda: build_dataset("coco", "val", root=str(coco_root))  # noqa: E731
    digests = [build().label_digest(0) for _ in range(2)]
    assert len(draws) == 1 and digests[0] == digests[1]
    os.utime(path, ns=(1, 1))
    assert build().label_digest(0) == digests[0] and len(draws) == 2  # of the content, not of the time
    path.write_text(path.read_text() + "\n")
    assert build().label_digest(0) != digests[0] and len(draws) == 3
    for file in cache().glob("*.labels"):
        os.truncate(file, file.stat().st_size // 2)
    assert np.asarray(build().open_label(3)).any() and len(draws) == 4


def test_a_folder_that_cannot_be_written_is_an_error_unless_the_labels_are_there(coco_root, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "file/cache"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write \S*file/cache.*: set DEEPLAB_CACHE to another folder"):
        build_dataset("coco", "val", root=str(coco_root))
    monkeypatch.setenv("DEEPLAB_CACHE", str(tmp_path / "good"))
    build_dataset("coco", "val", root=str(coco_root))
    monkeypatch.setattr("dataloaders.coco_index.locked", lambda *_, **__: 1 / 0)
    assert len(build_dataset("coco", "val", root=str(coco_root))) == 5


BUILD = "import dataloaders.coco_index as module, sys, pathlib\n"
BUILD += "module.num_processes, module.CHUNK = lambda _: 2, 5\nmodule.open_index(pathlib.Path(sys.argv[1]), print)"


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_is_used_and_the_next_one_takes_over(tmp_path):
    path = tmp_path / "annotations/instances_val2017.json"
    write_annotations(path, 300, repeats=3)
    first = begin([sys.executable, "-c", BUILD, str(path)])
    while not list(cache().glob(".coco-*.labels.*.part")):
        time.sleep(0.01)
    second = begin([sys.executable, "-c", BUILD, str(path)])
    time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    assert end(second)[0] == 0
    (found,) = cache().glob("*.labels")
    assert not list(cache().glob(".coco-*.part")) and found.stat().st_size > 1000
    shutil.rmtree(cache())
