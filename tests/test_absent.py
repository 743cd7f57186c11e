"""Classes that no training label has: said before training; without class 0 own data is refused unless allowed."""

import numpy as np
import pytest
from PIL import Image
from running import in_process, said
from sample_data import save_label

from dataloaders import build_dataset, check_absent, check_labels
from dataloaders.base import SegmentationDataset
from dataloaders.checks.counts import ClassCounts, class_counts
from utils.errors import UserError
from utils.run.checkpoint import read_checkpoint


def without_classes(root, *numbers: int, pattern: str = "t*"):
    """The folder dataset `root` with these classes ignored in the labels that `pattern` finds."""
    for path in root.glob(f"SegmentationClass/{pattern}"):
        label = np.asarray(Image.open(path))
        save_label(np.where(np.isin(label, numbers), 255, label).astype(np.uint8), path)
    return root


def check(root, allowed=()) -> None:
    dataset = build_dataset("folder", "train", root=str(root))
    check_absent(dataset, check_labels(dataset, workers=0, skip_broken=False), allowed)


def test_absent_classes_are_named_in_a_line(folder_root, capsys):
    check(without_classes(folder_root, 1, 2))
    assert said(capsys.readouterr().out)[-1] == "note: 2 of 3 classes occur in no training label: wall, sky"


def test_nothing_is_said_if_every_class_occurs_or_is_allowed(folder_root, capsys):
    check(folder_root)
    check(without_classes(folder_root, 1), ["wall"])
    check(folder_root, ["1"])
    assert "note" not in capsys.readouterr().out


def test_many_absent_classes_are_cut_after_five(folder_root, capsys):
    (folder_root / "classes.txt").write_text("".join(f"class {n}\n" for n in range(20)))
    check(folder_root)
    line = said(capsys.readouterr().out)[-1]
    assert line == "note: 17 of 20 classes occur in no training label: class 3, class 4, class 5, class 6, class 7, ..."


@pytest.mark.parametrize("allowed", [["0"], ["ground"], ["sky", "0"], None])
def test_class_0_may_be_absent_if_it_is_allowed_or_the_run_is_resumed(folder_root, allowed):
    without_classes(folder_root, 0)
    with pytest.raises(UserError, match=r"has class 0, 'ground'.*--first-id 1.*--allow-absent 0"):
        check(folder_root, ["1"])
    check(folder_root, allowed)


def test_only_training_labels_count(folder_root):
    """Class 0 is in the labels of val alone, or missing there alone."""
    check(without_classes(folder_root, 0, pattern="v*"))
    without_classes(folder_root, 0)
    with pytest.raises(UserError):
        check(folder_root)


def test_class_0_of_a_known_dataset_is_not_required(voc_root):
    dataset = build_dataset("pascal", "train", root=str(voc_root))
    check_absent(dataset, ClassCounts([0] * 21, [0] * 21, 9, 3), [])


def test_the_labels_are_read_once_for_check_and_counts(folder_root, monkeypatch):
    calls, original = [], SegmentationDataset.open_label
    monkeypatch.setattr(SegmentationDataset, "open_label", lambda *given: calls.append(given) or original(*given))
    dataset = build_dataset("folder", "train", root=str(folder_root))
    found = check_labels(dataset, workers=0, skip_broken=False)
    assert len(calls) == len(dataset) == found.num_images
    assert class_counts(dataset, workers=0) == found == check_labels(dataset, workers=0, skip_broken=False)
    assert len(calls) == len(dataset)
    labels = [np.asarray(dataset.read(index)[1]) for index in range(len(dataset))]
    assert found.pixels == [sum(int((label == number).sum()) for label in labels) for number in range(3)]
    assert found.ignored == sum(int((label == 255).sum()) for label in labels)


def test_a_run_trains_without_class_0_if_allowed_and_resumes(folder_root, tmp_path, capsys):
    """The flag is in the configuration, so a resumed run needs none."""
    data = ["--dataset", "folder", "--data-root", str(without_classes(folder_root, 0)), "--no-val"]
    assert in_process(data, tmp_path / "run") == (2, None)
    capsys.readouterr()
    status, folder = in_process([*data, "--allow-absent", "ground", "--max-steps", "1"], tmp_path / "run")
    assert status == 0 and "occur in no training label" not in capsys.readouterr().out
    checkpoint = folder / "checkpoint.pth.tar"
    assert read_checkpoint(checkpoint)["config"]["allow_absent"] == ["ground"]
    status, resumed = in_process([*data, "--resume", str(checkpoint), "--max-steps", "2"], tmp_path / "run")
    assert status == 0 and resumed == folder and read_checkpoint(checkpoint)["step"] == 2
