"""The training loop: finished objects in, a trained network out. It knows no dataset, no flag and no file."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from utils.distributed import gather_flat, rank, sync_buffers, wrap
from utils.distributed.device import tune_convolutions
from utils.distributed.sums import AllSums
from utils.ema import AveragedNetwork
from utils.errors import RunFailed
from utils.inference import Normalize, Predictor
from utils.optim import init_momentum, restore_optimizer
from utils.progress import StepMeter, print_above_bar, progress, time_left, validations_left
from utils.run.broken import broken_files
from utils.run.checkpoint import require_finite
from utils.run.recorder import Recorder
from utils.run.signals import InterruptibleLoader, StopRequest, StopSignals
from utils.scoring.cross_entropy import MeanCrossEntropy
from utils.scoring.gallery import Gallery
from utils.scoring.loop import score
from utils.seeding import seed_everything
from utils.train_step import Criterion, TrainStep


class SegmentationModel(Protocol):
    """What Trainer needs of a model: an `nn.Module`, `image [B, 3, H, W] (normalized) -> logits [B, K, H, W]`."""

    mean: Sequence[float]  # of its training images, RGB, values in 0..1
    std: Sequence[float]
    output_stride: int  # scoring pads images to k * output_stride + 1

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. `batch_size` is that of one optimizer step, over all processes and `accumulate` micro-batches."""

    epochs: int
    batch_size: int
    seed: int = 1
    max_steps: int | None = None
    save_every: int | None = None  # steps
    eval_interval: int = 1  # epochs
    accumulate: int = 1
    amp: str = "off"  # or bf16, fp16
    ema_decay: float = 0.0
    ema_every: int = 1  # steps
    max_norm: float = 0.0  # of the gradients; 0: any
    sam_rho: float = 0.0  # of sharpness-aware minimization, in every `sam_every`-th step; 0: off
    sam_every: int = 1
    mixup_alpha: float = 0.0  # 0: off
    channels_last: bool = False
    compile: bool = False
    example_ids: Sequence[str] = ()  # the validation images to draw


@dataclass(frozen=True)
class LaunchedStep:
    """A step that the device may not have finished. `sums`: of the loss, of the weights, broken files, requests."""

    number: int  # in the run, from 1
    lr: float
    ids: list[str]
    broken: list[str]
    sums: AllSums


class Trainer:
    """Trains `model` by epochs of `train_loader` and scores it on `val_loader` (None: no validation).

    `train_loader.batch_sampler` gives `settings.accumulate` micro-batches a step and has `steps_per_epoch` and
    `set_position(epoch, step)`. `criterion(logits, label)` gives (sum of the loss, sum of the pixel weights).
    `network` is what a step calls instead of `model`, and holds it: its output need only suit `criterion`. What else it
    holds is trained and saved beside `model`, and used nowhere else.
    `lr_factor(step)` multiplies the `base_lr` of each parameter group. `recorder` writes the files of the run,
    `signals` asks for a stop or a checkpoint.
    """

    def __init__(
        self,
        model: SegmentationModel,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        lr_factor: Callable[[int], float],
        train_loader: DataLoader,
        val_loader: DataLoader | None,
        *,
        settings: Settings,
        classes: Sequence[str],
        recorder: Recorder,
        signals: StopSignals,
        device: torch.device,
        network: nn.Module | None = None,
    ):
        self.model, self.optimizer, self.lr_factor = model, optimizer, lr_factor
        self.train_loader, self.val_loader, self.settings, self.classes = train_loader, val_loader, settings, classes
        self.recorder, self.signals, self.device = recorder, signals, device
        memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        network = network or model
        network.to(memory_format=memory_format)
        self.beside = nn.ModuleDict({name: part for name, part in network.named_children() if part is not model})
        init_momentum(optimizer)
        self.ema = AveragedNetwork(model, settings.ema_decay) if settings.ema_decay else None
        self.network = wrap(network, device)
        if settings.compile:
            self.network = torch.compile(self.network)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.make_step = TrainStep(
            self.network, criterion, optimizer, self.scaler, normalize=Normalize(model.mean, model.std, device),
            amp=settings.amp, memory_format=memory_format, device=device, max_norm=settings.max_norm,
            sam_rho=settings.sam_rho, mixup_alpha=settings.mixup_alpha,
        )  # fmt: skip
        self.steps_per_epoch = train_loader.batch_sampler.steps_per_epoch
        self.last_step = min(settings.epochs * self.steps_per_epoch, settings.max_steps or math.inf)
        self.epoch = self.step = 0  # finished ones
        self.last_logged_step = 0  # of the last epoch that was scored and logged
        self.best_miou: float | None = None
        self.epoch_losses, self.epoch_seconds = 0.0, 0.0  # sums over the current epoch
        self.scores: dict | None = None  # of the last validation
        self.validation_seconds: float | None = None  # of this process's last one
        self.launched: deque[LaunchedStep] = deque()
        self.lag = 1 if device.type == "cuda" else 0  # steps to launch before the loss of one is read
        self.request = StopRequest(stop=0, save=False)

    @property
    def is_finished(self) -> bool:
        """Every step was made, and its epoch is scored and logged."""
        return self.step > self.last_step or self.step == self.last_step == self.last_logged_step

    def fit(self) -> int:
        """Train to the last step. Returns 0, or the number of the signal that stopped it after a checkpoint."""
        self.recorder.open(self.epoch, self.step, self.last_logged_step)
        try:
            self.train_until_stopped()
            self.recorder.close(self.step)
        except BaseException as error:
            self.recorder.abort(error)
            raise
        return 0 if self.is_finished else self.request.stop

    def train_until_stopped(self) -> None:
        """Train until the last step, or until a signal asks for a stop; then the state is saved."""
        while not self.is_finished and not self.request.stop:
            self.train_one_epoch()
            if self.request.stop:
                self.save()
            else:
                self.finish_epoch()

    def train_one_epoch(self) -> None:
        """Train to the end of the epoch, the last step of the run, or the step after which a stop is requested."""
        first = self.step - self.epoch * self.steps_per_epoch
        end = min(self.steps_per_epoch, self.last_step - self.epoch * self.steps_per_epoch)
        if first >= end:
            return
        self.network.train()
        tune_convolutions(True)
        self.train_loader.batch_sampler.set_position(self.epoch, first)
        batches = iter(self.train_loader)
        with progress(f"epoch {self.epoch + 1}/{self.settings.epochs}", first, self.steps_per_epoch) as bar:
            meter = StepMeter(bar, self.settings.batch_size, self.epoch_seconds)
            for _ in range(first, end):
                self.launched.append(self.train_step([next(batches) for _ in range(self.settings.accumulate)]))
                self.finish_steps(meter, keep=self.lag)
                if self.is_save_due():
                    self.finish_steps(meter)
                    self.save()
                if self.request.stop:
                    break
            self.finish_steps(meter)

    def train_step(self, micro_batches: list[dict]) -> LaunchedStep:
        """One optimizer step, without waiting for the device. It changes no weight if its loss is not finite.

        A micro-batch is `{"image": uint8 [B, 3, H, W], "label": uint8 [B, H, W], "id": [str] * B}`; 255 in a label is
        ignored.
        """
        seed_everything(self.settings.seed, self.step, rank())  # of dropout
        self.set_lr(self.step)
        broken = broken_files(micro_batches)
        self.step += 1
        sums = self.make_step(
            micro_batches, lambda: [len(broken), *self.signals.pop_flags()],
            is_sharpness_aware=bool(self.settings.sam_rho) and self.step % self.settings.sam_every == 0,
        )  # fmt: skip
        if self.ema is not None and self.step % self.settings.ema_every == 0:
            self.ema.update()
        ids = [key for batch in micro_batches for key in batch["id"]]
        return LaunchedStep(self.step, self.learning_rate, ids, broken, sums)

    def finish_steps(self, meter: StepMeter, *, keep: int = 0) -> None:
        """Read and log the launched steps but the last `keep`. Raises RunFailed for a loss that is not finite."""
        while len(self.launched) > keep:
            step = self.launched.popleft()
            total, weight, num_broken, *flags = step.sums.read()
            if num_broken:
                self.recorder.add_broken(gather_flat(step.broken))
            loss = total / weight if weight else total
            if not math.isfinite(loss):
                self.raise_non_finite(loss, step)
            self.add_requests(flags)
            self.epoch_losses += loss
            speed = meter.update(loss, step.lr, self.time_left(meter, step.number))
            self.epoch_seconds = meter.seconds
            self.recorder.log_step(step.number, loss=loss, lr=step.lr, images_per_second=speed)

    def time_left(self, meter: StepMeter, step: int) -> str:
        """Of the whole run after `step`, by the steps of this epoch and the last validation."""
        validations = 0
        if self.val_loader is not None:
            num_epochs = math.ceil(self.last_step / self.steps_per_epoch)
            validations = validations_left(self.epoch, num_epochs, self.settings.eval_interval)
        return time_left(
            self.last_step - step, validations, step_seconds=meter.next_step_seconds,
            validation_seconds=self.validation_seconds,
        )  # fmt: skip

    def add_requests(self, flags: Sequence[float]) -> None:
        """Remember what the summed `flags` of all processes ask for."""
        new = self.signals.decode(flags)
        self.request = StopRequest(self.request.stop or new.stop, self.request.save or new.save)

    def set_lr(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.lr_factor(step)

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def raise_non_finite(self, loss: float, step: LaunchedStep) -> None:
        ids = gather_flat(step.ids)
        raise RunFailed(
            f"the loss is {loss} at epoch {self.epoch + 1}, step {step.number}, samples {', '.join(ids)}: no weight "
            "was changed by it and the last checkpoint is kept; check these samples, or lower the learning rate"
        )

    def finish_epoch(self) -> None:
        """Score, log and save. A stop request interrupts the scoring: then the resumed run scores this epoch."""
        scores = None
        if self.val_loader is not None and self.is_validation_due():
            self.save()  # scoring may take long: a kill must not cost the epoch
            scores = self.validate()
            if scores is None:
                return
        self.last_logged_step = self.step
        number, steps = self.epoch + 1, self.step - self.epoch * self.steps_per_epoch
        row = {"epoch": number, "step": self.step, "train_loss": self.epoch_losses / max(1, steps)}
        row |= {f"val_{name}": scores[name] if scores else None for name in ("loss", "miou", "pixel_accuracy")}
        row["val_iou"] = {name: each["iou"] for name, each in scores["per_class"].items()} if scores else None
        row |= {"lr": self.learning_rate, "seconds": round(self.epoch_seconds, 2)}
        if self.is_epoch_complete():
            self.epoch, self.epoch_losses, self.epoch_seconds = number, 0.0, 0.0
        miou = (scores["miou"] or 0.0) if scores else None
        is_best = miou is not None and (self.best_miou is None or miou > self.best_miou)
        self.recorder.log_epoch(row, is_best=is_best, num_epochs=self.settings.epochs)
        if is_best:
            self.best_miou = miou
        self.save(is_best=is_best)

    def is_epoch_complete(self) -> bool:
        """All steps of the epoch were made, but it is not yet logged."""
        return self.step == (self.epoch + 1) * self.steps_per_epoch

    def is_validation_due(self) -> bool:
        return (self.epoch + 1) % self.settings.eval_interval == 0 or self.step >= self.last_step

    def validate(self) -> dict | None:
        """Scores of the averaged network where there is one, else of the trained one; see `ConfusionMatrix.scores`.

        None where a stop request interrupted it in some process.
        """
        model = self.ema.module if self.ema is not None else self.model
        sync_buffers(model)
        batches = InterruptibleLoader(self.val_loader, self.signals)
        gallery = Gallery(len(self.classes), self.settings.example_ids)
        start, loss = time.monotonic(), MeanCrossEntropy()
        confusion = score(
            Predictor(model, self.device, amp=self.settings.amp), batches, num_classes=len(self.classes),
            device=self.device, observers=[gallery], loss=loss,
        )  # fmt: skip
        own = [batches.interrupted, len(batches.broken), *self.signals.pop_flags()]
        num_interrupted, num_broken, *flags = AllSums(own, device=self.device).read()
        self.add_requests(flags)
        if num_interrupted:
            return None
        if num_broken:
            self.recorder.add_broken(gather_flat(batches.broken))
        self.scores = {"loss": loss.mean()} | confusion.scores(self.classes)
        self.validation_seconds = time.monotonic() - start
        self.recorder.log_validation(
            self.scores, confusion.counts.cpu(), gallery, step=self.step, out_stride=model.output_stride
        )
        return self.scores

    def is_save_due(self) -> bool:
        """By --save-every or a request; the end of an epoch or of the run saves by itself."""
        is_due = self.settings.save_every and self.step % self.settings.save_every == 0
        return bool(is_due or self.request.save) and not self.is_epoch_complete() and self.step < self.last_step

    def save(self, *, is_best: bool = False) -> None:
        """Save the state as the latest, and if `is_best` also as the best checkpoint. The files are written later."""
        require_finite(self.model, self.step)
        self.recorder.save(self.state_dict, is_best=is_best)
        if self.request.save:
            self.recorder.wait()  # who asked for it reads it
            print_above_bar(f"asked for by SIGUSR1: checkpoint of step {self.step}")
            self.request = self.request._replace(save=False)

    def state_dict(self) -> dict:
        """Tensors and plain values with which a later process continues as if this one had never stopped."""
        others = {} if self.ema is None else {"ema_state_dict": self.ema.module.state_dict()}
        if self.beside:
            others["auxiliary_state_dict"] = self.beside.state_dict()
        return others | {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "counted_step": self.last_logged_step,
            "best_pred": self.best_miou or 0.0,
            "has_best": self.best_miou is not None,
            "epoch_losses": self.epoch_losses,
            "epoch_seconds": self.epoch_seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue a run at `state`; checkpoints without `counted_step` and `has_best` are those of older versions."""
        self.model.load_state_dict(state["state_dict"])
        self.beside.load_state_dict(state.get("auxiliary_state_dict", {}))
        restore_optimizer(self.optimizer, state["optimizer"])
        if (scale := state["scaler"]) and self.scaler.is_enabled():  # empty if the run had another precision
            self.scaler.load_state_dict(scale)
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("ema_state_dict", state["state_dict"]))
            self.ema.num_updates = state["step"] // self.settings.ema_every
        self.epoch, self.step = state["epoch"], state["step"]
        self.last_logged_step = state.get("counted_step", self.epoch * self.steps_per_epoch)
        self.best_miou = state["best_pred"] if state.get("has_best", state["best_pred"] > 0) else None
        self.epoch_losses, self.epoch_seconds = state["epoch_losses"], state["epoch_seconds"]
        self.set_lr(max(0, self.step - 1))  # that of the last step: the log may be due before the next one
