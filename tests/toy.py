"""A Trainer of a 1x1 convolution on images in memory, whose recorder and signals only keep what they receive."""

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from engine import Settings, Trainer
from utils.losses import CrossEntropy
from utils.run.signals import StopRequest
from utils.scoring.gallery import Gallery

Actions = Mapping[int, Callable[[], object]]  # what to do at a step of the run, counted from 1
BATCH_SIZE = 2


class ToyNetwork(nn.Module):
    mean, std, output_stride = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.conv = nn.Dropout(0.2), nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(self.dropout(image))


class ToyLoader:
    """`steps_per_epoch` batches of two images of 4x5 pixels. `actions` run before their batch is given."""

    def __init__(self, steps_per_epoch: int, actions: Actions):
        self.steps_per_epoch, self.actions = steps_per_epoch, actions
        self.batch_sampler = self
        self.given: list[int] = []  # steps of the batches so far
        self.set_position(0, 0)

    def set_position(self, epoch: int, step: int) -> None:
        self.next_step, self.end = epoch * self.steps_per_epoch + step, (epoch + 1) * self.steps_per_epoch

    def __len__(self) -> int:
        return self.end - self.next_step

    def __iter__(self) -> Iterator[dict]:
        for step in range(self.next_step + 1, self.end + 1):
            self.given.append(step)
            self.actions.get(step, nothing)()
            random = torch.Generator().manual_seed(step)
            image = torch.randint(0, 256, (BATCH_SIZE, 3, 4, 5), generator=random, dtype=torch.uint8)
            label = torch.randint(0, 3, (BATCH_SIZE, 4, 5), generator=random, dtype=torch.uint8)
            label[:, 0] = 255
            yield {"image": image, "label": label, "id": [f"{step}a", f"{step}b"]}


class ToyRecorder:
    """Keeps what it is told. `actions` run when their step is logged: after it, and before it can be saved."""

    def __init__(self, actions: Actions):
        self.actions = actions
        self.opened: tuple[int, int, int] | None = None
        self.closed: int | None = None
        self.steps: list[dict] = []
        self.validations: list[int] = []
        self.epochs: list[dict] = []
        self.saves: list[tuple[str, int]] = []  # (latest or best, step)
        self.states: list[dict] = []

    def open(self, epoch: int, step: int, last_logged_step: int) -> None:
        self.opened = (epoch, step, last_logged_step)

    def log_step(self, step: int, **values: float) -> None:
        self.steps.append({"step": step} | values)
        self.actions.get(step, nothing)()

    def log_validation(self, scores: dict, counts: Tensor, gallery: Gallery, *, step: int, out_stride: int) -> None:
        self.validations.append(step)

    def log_epoch(self, row: dict, *, is_best: bool, num_epochs: int) -> None:
        self.epochs.append(row | {"is_best": is_best})

    def save(self, state: Callable[[], dict], *, is_best: bool = False) -> None:
        for name in ("best", "latest") if is_best else ("latest",):
            self.states.append(copy.deepcopy(state()))
            self.saves.append((name, self.states[-1]["step"]))

    def wait(self) -> None:
        pass

    def abort(self, error: BaseException) -> None:
        pass

    def close(self, step: int) -> None:
        self.closed = step


class ToySignals:
    """Asks for a stop while `received` is set, and once for a checkpoint where `save_requested` is."""

    received: int | None = None
    save_requested = False

    def pop_flags(self) -> list[float]:
        flags = [float(self.received or 0), float(self.save_requested)]
        self.save_requested = False
        return flags

    def decode(self, sums: list[float]) -> StopRequest:
        return StopRequest(int(sums[0]), sums[1] > 0)


def nothing() -> None:
    pass


def toy_trainer(
    *,
    steps_per_epoch: int = 3,
    before_step: Actions | None = None,
    after_step: Actions | None = None,
    before_image: Actions | None = None,
    criterion: Callable | None = None,
    signals: object = None,
    state: dict | None = None,
    is_fused: bool = True,
    lag: int = 0,
    **settings: object,
) -> Trainer:
    """A Trainer of two epochs, unless `settings` say otherwise; resumed where a `state` is given.

    `is_fused` and `lag`: as on CUDA (True, 1), the CPU (True, 0) or MPS (False, 0).

    With `before_image` it validates on two batches, and the action of 1 or 2 runs before that batch is scored.
    """
    torch.manual_seed(3)
    model = ToyNetwork()
    group = {"params": list(model.parameters()), "base_lr": 0.1}
    trainer = Trainer(
        model, criterion or CrossEntropy(), torch.optim.SGD([group], lr=0.1, momentum=0.9, fused=is_fused),
        lambda step: 0.9**step,
        ToyLoader(steps_per_epoch, before_step or {}), None if before_image is None else ToyLoader(2, before_image),
        settings=Settings(**{"epochs": 2, "batch_size": BATCH_SIZE} | settings), classes=("a", "b", "c"),
        recorder=ToyRecorder(after_step or {}), signals=signals or ToySignals(), device=torch.device("cpu"),
    )  # fmt: skip
    trainer.lag = lag
    if state is not None:
        trainer.load_state_dict(state)
    return trainer
