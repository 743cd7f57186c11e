"""Class weights against numbers computed by hand, and when their pixels are counted anew."""

import math

import numpy as np
import pytest
from PIL import Image

from dataloaders import build_dataset
from utils.class_weights import class_weights
from utils.errors import BrokenImage, UserError
from utils.losses import build_loss


class TinyLabels:
    """Of 16 pixels, 8 are class 0, 2 are class 1, none is class 2 and 6 are ignored."""

    name, classes = "tiny", ("a", "b", "c")
    rows = ([[0, 0, 0, 0], [255, 255, 255, 255]], [[0, 0, 1, 255], [0, 0, 1, 255]])

    def __init__(self):
        self.opened = []

    def __len__(self) -> int:
        return len(self.rows)

    def open_label(self, index: int) -> Image.Image:
        self.opened.append(index)
        return Image.fromarray(np.array(self.rows[index], np.uint8))

    def label_digest(self, index: int) -> bytes:
        return repr(self.rows[index]).encode()


def test_weights_are_those_of_the_formula():
    """1 / ln(1.02 + p), where p is the class's share of the labeled pixels: 0.8, 0.2 and 0."""
    weights = class_weights(TinyLabels())
    assert weights == [1 / math.log(1.02 + 0.8), 1 / math.log(1.02 + 0.2), 1 / math.log(1.02)]
    assert weights == pytest.approx([1.669905, 5.028895, 50.498350], abs=1e-6)


def test_the_loss_takes_these_weights():
    weights = class_weights(TinyLabels())
    assert build_loss("ce", class_weights=weights).class_weights.tolist() == pytest.approx(weights, rel=1e-7)


def test_pixels_are_counted_again_only_if_labels_or_classes_change():
    labels = TinyLabels()
    first = class_weights(labels)
    assert class_weights(labels) == first and labels.opened == [0, 1]
    labels.rows = ([[0] * 4] * 2, [[1] * 4] * 2)
    assert class_weights(labels) == [1 / math.log(1.52), 1 / math.log(1.52), 1 / math.log(1.02)]
    labels.classes = ("a", "b")
    assert class_weights(labels) == [1 / math.log(1.52)] * 2
    assert labels.opened == [0, 1] * 3


def test_weights_of_a_dataset_are_those_of_its_raw_labels(folder_root):
    labels = [np.asarray(Image.open(path)) for path in (folder_root / "SegmentationClass").glob("t*")]
    counts = [sum(int((label == number).sum()) for label in labels) for number in range(3)]
    expected = [1 / math.log(1.02 + count / sum(counts)) for count in counts]
    assert class_weights(build_dataset("folder", "train", root=str(folder_root))) == expected


def test_skip_broken_leaves_out_labels_that_cannot_be_decoded(folder_root):
    for key in ("t.1", "t.2", "t.3", "t.4", "t.5"):
        (folder_root / f"SegmentationClass/{key}.png").write_text("x")
    data = build_dataset("folder", "train", root=str(folder_root))
    with pytest.raises(BrokenImage, match=r"t\.1\.png"):
        class_weights(data)
    label = np.asarray(Image.open(folder_root / "SegmentationClass/t.0.png"))
    shares = [float((label == number).sum() / (label != 255).sum()) for number in range(3)]
    assert class_weights(data, skip_broken=True) == pytest.approx([1 / math.log(1.02 + p) for p in shares], rel=1e-12)


def test_labels_without_a_labeled_pixel_are_refused():
    labels = TinyLabels()
    labels.rows = ([[255] * 4] * 2,)
    with pytest.raises(UserError, match="no training label has a labeled pixel: correct the labels"):
        class_weights(labels)
