"""The scoring loop: observers in threads, their order, errors and memory."""

import threading

import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.scoring import loop
from utils.scoring.boundaries import BoundaryIoU, Trimap
from utils.scoring.loop import Observer, score
from utils.scoring.metrics import ConfusionMatrix
from utils.scoring.per_image import PerImage

CPU = torch.device("cpu")


def batches(count: int) -> list[dict]:
    """Of one or two images of two classes; the red channel is what `predict` predicts."""
    random, made = np.random.default_rng(0), []
    for number in range(count):
        size = (1 + number % 2, 12, 10 + number)
        image = torch.from_numpy(random.integers(0, 2, (size[0], 3, *size[1:]), dtype=np.uint8))
        label = torch.from_numpy(random.choice(np.array([0, 1, 255], np.uint8), size))
        made.append({"image": image, "label": label, "id": [f"{number}.{index}" for index in range(size[0])]})
    return made


def predict(image: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - image[:, 0].float(), image[:, 0].float()], 1)


class Spy(Observer):
    """Keeps the ids it adds; `action(key)` runs in the thread that measures."""

    def __init__(self, action=lambda key: None):
        self.action, self.keys = action, []

    def measure(self, key, prediction, label, image):
        self.action(key)
        return key

    def add(self, measured):
        self.keys.append(measured)

    def all_reduce(self, device):
        self.keys.append("merged")


def ids(made: list[dict]) -> list[str]:
    return [key for batch in made for key in batch["id"]]


@pytest.fixture(params=[1, 4])
def num_threads(request, monkeypatch) -> int:
    monkeypatch.setattr(loop, "NUM_THREADS", request.param)
    monkeypatch.setattr(loop, "MAX_PENDING", 2 * request.param)
    return request.param


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("observer")]


def test_results_are_those_of_one_image_after_the_other(num_threads):
    made = batches(11)

    def observers() -> list:
        return [PerImage(2), Trimap([1, 3], 2, border="classes"), Trimap([2], 2, border="void"), BoundaryIoU(2), Spy()]

    expected, found = observers(), observers()
    plain = ConfusionMatrix(2)
    for batch in made:
        for key, image, label in zip(batch["id"], batch["image"], batch["label"], strict=True):
            plain.update(image[0], label)
            for observer in expected:
                observer.update(key, image[0], label, image)
    confusion = score(predict, made, num_classes=2, device=CPU, observers=found)
    assert torch.equal(confusion.counts, plain.counts)
    assert list(found[0].rows.items()) == list(expected[0].rows.items())
    assert [each.scores("ab") for each in found[1:-1]] == [each.scores("ab") for each in expected[1:-1]]
    assert found[-1].keys == [*ids(made), "merged"]


def test_the_next_image_is_predicted_while_one_is_measured():
    predicted, is_further = [], threading.Event()

    def predict_and_count(image: torch.Tensor) -> torch.Tensor:
        predicted.append(image)
        if len(predicted) == 3:
            is_further.set()
        return predict(image)

    def wait(key: str) -> None:
        assert is_further.wait(60)

    made, spy = batches(4), Spy(wait)
    score(predict_and_count, made, num_classes=2, device=CPU, observers=[spy])
    assert spy.keys == [*ids(made), "merged"]


class Loader(list):
    """Calls `before(batch)` before it gives a batch."""

    def __init__(self, made: list[dict], before):
        super().__init__(made)
        self.before = before

    def __iter__(self):
        for batch in list.__iter__(self):
            self.before(batch)
            yield batch


def test_images_in_memory_are_bounded(num_threads):
    """With the first image the slowest: the others wait for it, since images are added in their order."""
    loaded, spy, is_full = [], Spy(lambda key: key != "0.0" or is_full.wait(60)), threading.Event()

    def count(batch: dict) -> None:
        loaded.extend(batch["id"])
        if len(loaded) >= 2 * num_threads:
            is_full.set()
        assert len(loaded) - len(spy.keys) <= 2 * num_threads + 4  # with the batch loaded and the one before

    score(predict, Loader(batches(30), count), num_classes=2, device=CPU, observers=[spy])
    assert len(spy.keys) == 46


def test_the_first_error_of_an_observer_ends_the_loop(num_threads):
    def fail(key: str) -> None:
        if key >= "3.0":
            raise UserError(f"cannot write {key}")

    for count in (4, 9):  # at the last image and before it
        spy = Spy(fail)
        with pytest.raises(UserError, match=r"^cannot write 3\.0$"):
            score(predict, batches(count), num_classes=2, device=CPU, observers=[spy])
        assert spy.keys == ["0.0", "1.0", "1.1", "2.0"]


def test_ctrl_c_ends_the_loop(num_threads):
    def interrupt(batch: dict) -> None:
        if batch["id"] == ["4.0"]:
            raise KeyboardInterrupt

    spy = Spy()
    with pytest.raises(KeyboardInterrupt):
        score(predict, Loader(batches(9), interrupt), num_classes=2, device=CPU, observers=[spy])
    assert "merged" not in spy.keys


def test_observers_leave_the_main_thread_its_torch_threads():
    before, counts = torch.get_num_threads(), []
    spy = Spy(lambda key: counts.append(torch.get_num_threads()))
    score(predict, batches(3), num_classes=2, device=CPU, observers=[spy])
    assert set(counts) == {1} and torch.get_num_threads() == before
