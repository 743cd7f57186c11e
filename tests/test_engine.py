"""The training loop alone, on a toy: order of the steps, stops, checkpoints, losses and weights that are not finite."""

import signal
import time

import pytest
import torch
from toy import ToySignals, toy_trainer

from benchmarks.kill_resume import differences
from engine import Trainer
from utils.errors import RunFailed
from utils.losses import CrossEntropy
from utils.run.signals import StopSignals


def request_stop(signals: ToySignals) -> None:
    signals.received = signal.SIGTERM


def same_end(one: Trainer, two: Trainer) -> bool:
    """The same weights, momentum and counters, bit for bit."""
    return differences(one.state_dict(), two.state_dict()) == []


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def has_changed(trainer: Trainer, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(one, two) for one, two in zip(before, trainer.model.parameters(), strict=True))


# How the loop runs on CUDA, the CPU and MPS
DEVICES = pytest.mark.parametrize(
    "how", [{"lag": 1}, {"lag": 0}, {"lag": 0, "is_fused": False}], ids=["cuda", "cpu", "mps"]
)


def raise_signals(number: int, count: int = 1):
    def action() -> None:
        for _ in range(count):
            signal.raise_signal(number)

    return action


def test_an_epoch_is_saved_before_it_is_scored_and_the_best_before_the_latest():
    trainer = toy_trainer(before_image={})
    assert trainer.fit() == 0
    recorder = trainer.recorder
    assert recorder.opened == (0, 0, 0) and recorder.closed == 6
    assert [row["step"] for row in recorder.steps] == [1, 2, 3, 4, 5, 6]
    assert [(row["epoch"], row["step"]) for row in recorder.epochs] == [(1, 3), (2, 6)]
    assert recorder.epochs[0]["is_best"] and recorder.validations == [3, 6]
    assert recorder.saves[:3] == [("latest", 3), ("best", 3), ("latest", 3)]
    # Before the validation the epoch is neither counted nor logged
    assert [(state["epoch"], state["counted_step"]) for state in recorder.states[:3]] == [(0, 0), (1, 3), (1, 3)]
    # A finished trainer has nothing left to do
    again = toy_trainer(before_image={}, state=recorder.states[-1])
    assert again.is_finished and again.fit() == 0 and again.recorder.saves == []


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps():
    trainer = toy_trainer(max_steps=5)
    trainer.fit()
    losses = [row["loss"] for row in trainer.recorder.steps]
    means = [row["train_loss"] for row in trainer.recorder.epochs]
    assert means == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 2])
    assert [row["lr"] for row in trainer.recorder.steps] == pytest.approx([0.1 * 0.9**step for step in range(5)])


def test_validation_follows_its_interval_and_the_last_step():
    trainer = toy_trainer(before_image={}, epochs=5, eval_interval=2)
    trainer.fit()
    assert trainer.recorder.validations == [6, 12, 15]
    assert [row["val_miou"] is None for row in trainer.recorder.epochs] == [True, False, True, False, False]


def test_the_best_score_is_the_highest_so_far():
    trainer = toy_trainer(before_image={}, epochs=6)
    trainer.fit()
    scores = [row["val_miou"] for row in trainer.recorder.epochs]
    expected = [score > max(scores[:number], default=-1) for number, score in enumerate(scores)]
    assert [row["is_best"] for row in trainer.recorder.epochs] == expected and not all(expected)
    assert trainer.recorder.saves.count(("best", 3)) == 1 and trainer.recorder.states[-1]["best_pred"] == max(scores)


@pytest.mark.parametrize(("max_steps", "saves"), [(None, [2, 3, 4, 6]), (4, [2, 3, 4])])
def test_save_every_saves_between_the_epochs(max_steps, saves):
    """The end of an epoch or of the run, which saves anyway, saves once."""
    trainer = toy_trainer(save_every=2, max_steps=max_steps)
    trainer.fit()
    assert trainer.recorder.saves == [("latest", step) for step in saves]


def test_the_averaged_weights_follow_the_trained_ones():
    """The first step sets the average, each later one moves it by 1 - decay of the difference."""
    steps = []
    trainer = toy_trainer(ema_decay=0.75, after_step=dict.fromkeys(range(1, 7), lambda: steps.append(weights(trainer))))
    trainer.fit()
    expected = steps[0]
    for step in steps[1:]:
        expected = [0.75 * one + 0.25 * two for one, two in zip(expected, step, strict=True)]
    state = trainer.recorder.states[-1]["ema_state_dict"]
    torch.testing.assert_close(list(state.values()), expected)
    assert has_changed(trainer, list(state.values()))


@pytest.mark.parametrize("max_steps", [1, 2, 3, 4])
def test_a_resumed_trainer_reads_only_what_is_left_and_ends_with_the_same_bits(max_steps):
    flags = {"before_image": {}, "ema_decay": 0.5}
    whole, first = toy_trainer(**flags), toy_trainer(max_steps=max_steps, **flags)
    whole.fit()
    first.fit()
    resumed = toy_trainer(state=first.recorder.states[-1], **flags)
    assert resumed.fit() == 0
    assert resumed.train_loader.given == list(range(max_steps + 1, 7))
    assert same_end(whole, resumed)


def test_speed_counts_the_images_of_this_process_in_this_epoch(monkeypatch, capsys):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def taking(seconds: float):
        def action() -> None:
            nonlocal now
            now += seconds

        return action

    def speeds(trainer: Trainer) -> list[float]:
        return [row["images_per_second"] for row in trainer.recorder.steps]

    seconds = {1: taking(1), 2: taking(3), 3: taking(4), 4: taking(8), 5: taking(2)}
    first = toy_trainer(before_step=seconds, max_steps=5)
    first.fit()
    assert speeds(first) == pytest.approx([2 / 1, 4 / 4, 6 / 8, 2 / 8, 4 / 10])
    assert [row["seconds"] for row in first.recorder.epochs] == [8, 10]
    bars = capsys.readouterr().err
    assert "0.8 images/s" in bars and "0.4 images/s" in bars
    now = 0.0
    resumed = toy_trainer(before_step={6: taking(4)}, state=first.recorder.states[-1])
    resumed.fit()
    assert speeds(resumed) == [2 / 4] and "0.5 images/s" in capsys.readouterr().err
    assert resumed.recorder.epochs[-1]["seconds"] == 14  # those of the whole epoch


@pytest.mark.parametrize("settings", [{}, {"save_every": 2, "before_image": {}}, {"ema_decay": 0.5, "amp": "bf16"}])
def test_reading_a_loss_one_step_late_changes_no_result(settings):
    one, two = (toy_trainer(lag=lag, **settings) for lag in (0, 1))
    assert one.fit() == two.fit() == 0
    assert same_end(one, two) and one.recorder.saves == two.recorder.saves
    for row, other in zip(one.recorder.steps, two.recorder.steps, strict=True):
        assert (row["step"], row["loss"], row["lr"]) == (other["step"], other["loss"], other["lr"])
    for state, other in zip(one.recorder.states, two.recorder.states, strict=True):
        assert differences(state, other) == []


def test_a_loss_is_read_while_the_next_step_runs_but_before_a_save():
    """The steps that were given to the network when the loss of each was read."""
    given, flags = [], {"save_every": 4, "steps_per_epoch": 6, "epochs": 1}
    trainer = toy_trainer(
        lag=1, **flags, after_step=dict.fromkeys(range(1, 7), lambda: given.append(trainer.train_loader.given[-1]))
    )
    trainer.fit()
    assert given == [2, 3, 4, 4, 6, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_on_cuda_a_stop_signal_takes_effect_one_step_later(number):
    whole = toy_trainer(steps_per_epoch=5, lag=1)
    whole.fit()
    trainer = toy_trainer(steps_per_epoch=5, lag=1, before_step={2: raise_signals(number)}, signals=StopSignals())
    with trainer.signals:
        assert trainer.fit() == number
    assert trainer.recorder.saves == [("latest", 3)]
    assert [row["step"] for row in trainer.recorder.steps] == [1, 2, 3]
    resumed = toy_trainer(steps_per_epoch=5, lag=1, state=trainer.recorder.states[-1])
    assert resumed.fit() == 0 and same_end(whole, resumed)


def test_backward_is_outside_mixed_precision():
    """Autocast covers the network alone: neither the loss nor the backward pass."""
    seen = []

    class Watching(CrossEntropy):
        def forward(self, logits, label):
            seen.append(torch.is_autocast_enabled("cpu"))
            logits.register_hook(lambda _: seen.append(torch.is_autocast_enabled("cpu")))
            return super().forward(logits, label)

    toy_trainer(amp="bf16", criterion=Watching(), max_steps=1).fit()
    assert seen == [False, False]


@pytest.mark.parametrize("first", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("second", ["off", "bf16", "fp16"])
def test_a_resumed_run_may_change_its_precision(first, second):
    trainer = toy_trainer(amp=first, max_steps=3)
    trainer.fit()
    state = trainer.recorder.states[-1]
    resumed = toy_trainer(amp=second, state=state)
    before = weights(resumed)
    assert resumed.fit() == 0 and has_changed(resumed, before)
    scale = 65536.0 if second == "fp16" else 1.0
    assert resumed.scaler.get_scale() == scale


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_takes_effect_after_the_step(number):
    whole = toy_trainer()
    whole.fit()
    trainer = toy_trainer(before_step={2: raise_signals(number)}, signals=StopSignals())
    with trainer.signals:
        assert trainer.fit() == number
    assert trainer.recorder.saves == [("latest", 2)] and trainer.recorder.epochs == []
    resumed = toy_trainer(state=trainer.recorder.states[-1])
    assert resumed.fit() == 0 and same_end(whole, resumed)


def test_a_second_interrupt_does_not_wait_for_the_step():
    trainer = toy_trainer(before_step={3: raise_signals(signal.SIGINT, 2)}, signals=StopSignals(), save_every=1)
    with trainer.signals, pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.recorder.saves == [("latest", 1), ("latest", 2)]


def test_a_stop_during_validation_leaves_it_to_the_resumed_run():
    whole = toy_trainer(before_image={})
    whole.fit()
    signals = ToySignals()
    trainer = toy_trainer(before_image={1: lambda: request_stop(signals)}, signals=signals)
    assert trainer.fit() == signal.SIGTERM
    assert trainer.recorder.validations == trainer.recorder.epochs == []
    assert trainer.val_loader.given == [1]  # the second batch is not scored
    state = trainer.recorder.states[-1]
    assert (state["step"], state["epoch"], state["counted_step"], state["has_best"]) == (3, 0, 0, False)
    resumed = toy_trainer(before_image={}, state=state)
    assert resumed.fit() == 0 and same_end(whole, resumed)
    assert resumed.train_loader.given == [4, 5, 6] and resumed.recorder.validations == [3, 6]


def test_a_stop_at_the_last_step_leaves_validation_and_log_to_the_resumed_run():
    whole = toy_trainer(before_image={}, max_steps=4)
    whole.fit()
    signals = ToySignals()
    actions = {4: lambda: request_stop(signals)}
    trainer = toy_trainer(before_image={}, max_steps=4, before_step=actions, signals=signals)
    assert trainer.fit() == signal.SIGTERM
    assert trainer.recorder.validations == [3] and len(trainer.recorder.epochs) == 1
    resumed = toy_trainer(before_image={}, max_steps=4, state=trainer.recorder.states[-1])
    assert resumed.fit() == 0 and same_end(whole, resumed)
    assert resumed.train_loader.given == [] and resumed.recorder.validations == [4]


@pytest.mark.parametrize(("step", "saves"), [(2, [2, 3, 6]), (3, [3, 6]), (6, [3, 6])])
def test_sigusr1_saves_after_the_step(step, saves, capsys):
    """The end of an epoch or of the run, which saves anyway, saves once."""
    trainer = toy_trainer(before_step={step: raise_signals(signal.SIGUSR1)}, signals=StopSignals())
    with trainer.signals:
        assert trainer.fit() == 0
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert trainer.recorder.saves == [("latest", step) for step in saves]
    assert capsys.readouterr().out.count(f"asked for by SIGUSR1: checkpoint of step {step}\n") == 1


class LossWith(CrossEntropy):
    """Adds `terms[step](logits)` to the loss of that step, counted from 1."""

    def __init__(self, terms: dict):
        super().__init__()
        self.terms, self.step = terms, 0

    def forward(self, logits, label):
        self.step += 1
        total, weight = super().forward(logits, label)
        return total + (self.terms[self.step](logits) if self.step in self.terms else 0), weight


def infinite_gradient(logits: torch.Tensor) -> torch.Tensor:
    """0, whose gradient is not finite."""
    return (logits * 0).sum().sqrt()


@DEVICES
@pytest.mark.parametrize("amp", ["off", "fp16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_no_weight(value, amp, how):
    before = []
    trainer = toy_trainer(
        criterion=LossWith({5: lambda _: value}), save_every=1, amp=amp, **how,
        after_step={4: lambda: before.append(weights(trainer))},
    )  # fmt: skip
    samples = rf"loss is {value} at epoch 2, step 5, samples 5a, 5b: no weight was changed"
    with pytest.raises(RunFailed, match=samples):
        trainer.fit()
    assert not has_changed(trainer, before[0])
    assert trainer.recorder.saves[-1] == ("latest", 4)


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_first_loss_that_is_not_finite_leaves_the_momentum_at_zero(amp):
    """On CUDA the next step runs before it is known."""
    trainer = toy_trainer(criterion=LossWith({1: lambda _: float("nan")}), amp=amp, lag=1, max_steps=1)
    before = weights(trainer)
    with pytest.raises(RunFailed, match="loss is nan at epoch 1, step 1"):
        trainer.fit()
    assert not has_changed(trainer, before)
    assert all((state["momentum_buffer"] == 0).all() for state in trainer.optimizer.state.values())


@DEVICES
def test_the_first_step_follows_the_mean_gradient(how):
    """Over the labeled pixels of the batch; a step without any changes nothing but by momentum."""
    trainer = toy_trainer(max_steps=1, **how)
    batch = next(iter(trainer.train_loader))
    before = [parameter.detach().clone().requires_grad_() for parameter in trainer.model.parameters()]
    trainer.model.dropout.p = 0.0
    logits = torch.nn.functional.conv2d((batch["image"] / 255 - 0.5) / 0.25, *before)
    torch.nn.functional.cross_entropy(logits, batch["label"].long(), ignore_index=255).backward()
    trainer.fit()
    for old, new in zip(before, trainer.model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * old.grad)


@DEVICES
def test_a_batch_without_a_label_has_loss_zero_and_no_gradient(how):
    class Unlabeled(CrossEntropy):
        def forward(self, logits, label):
            return super().forward(logits, torch.full_like(label, 255))

    trainer = toy_trainer(criterion=Unlabeled(), **how)
    before = weights(trainer)
    assert trainer.fit() == 0 and not has_changed(trainer, before)
    assert all(row["loss"] == 0 for row in trainer.recorder.steps)


def test_weights_that_are_not_finite_are_not_saved():
    """The loss is finite, its gradient is not."""
    trainer = toy_trainer(criterion=LossWith({2: infinite_gradient}), save_every=1)
    with pytest.raises(RunFailed, match="the weights are not finite after step 2: the last checkpoint is kept"):
        trainer.fit()
    assert trainer.recorder.saves == [("latest", 1)]


def test_fp16_skips_a_step_with_an_infinite_gradient_but_stops_at_a_loss_that_is_not_finite():
    changed, scales, before = [], [], []

    def watch() -> None:
        changed.append(has_changed(trainer, before[-1]))
        scales.append(trainer.scaler.get_scale())

    steps = range(1, 7)
    trainer = toy_trainer(
        amp="fp16",
        criterion=LossWith({4: infinite_gradient, 6: lambda _: float("nan")}),
        before_step=dict.fromkeys(steps, lambda: before.append(weights(trainer))),
        after_step=dict.fromkeys(steps, watch),
    )
    with pytest.raises(RunFailed, match="loss is nan at epoch 2, step 6"):
        trainer.fit()
    assert changed == [True, True, True, False, True]
    assert scales[3] == scales[2] / 2
