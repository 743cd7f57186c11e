"""The training loop. It is handed finished objects, and knows no data set and no flags.

Long, so that a run can be read from top to bottom in one place.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from errors import RunFailed, UserError
from utils.broken import BrokenFiles, broken_files
from utils.checkpoint import to_bytes
from utils.device import tune_convolutions
from utils.distributed import all_reduce, gather, is_main_process, rank, sync_buffers, world_size, wrap
from utils.inference import Normalise, Predictor
from utils.metrics import percent, render_metrics
from utils.optim import restore
from utils.preemption import StopSignals, UntilStopped, Wishes
from utils.progress import progress
from utils.run_folder import RunFolder
from utils.scoring import score
from utils.seeding import seed_everything
from utils.summaries import Board, cut_back_events
from utils.visualize import Palette, png, sheet

AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BOARD_EVERY = 10  # steps between two scalars of the training loss


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. `batch_size` is the whole batch of a step, over all processes and `accumulate` parts."""

    epochs: int
    batch_size: int
    seed: int = 1
    max_steps: int | None = None
    save_every: int | None = None
    eval_interval: int = 1
    accumulate: int = 1
    amp: str = "off"
    ema_decay: float = 0.0
    channels_last: bool = False
    compile: bool = False
    num_examples: int = 4


class Trainer:
    """Trains `model` by epochs of `train_loader`, scores it on `val_loader`, and writes the run's files.

    `train_loader.batch_sampler` gives `settings.accumulate` parts a step and has `steps_per_epoch` and `set_position`.
    `rate_factor(step)` multiplies each parameter group's `base_lr`. `extra` (plain values) goes into each checkpoint.
    `val_loader` None: no validation.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        optimizer: torch.optim.Optimizer,
        rate_factor: Callable[[int], float],
        train_loader: DataLoader,
        val_loader: DataLoader | None,
        *,
        settings: Settings,
        run: RunFolder,
        classes: Sequence[str],
        palette: Palette,
        device: torch.device,
        extra: dict,
    ):
        self.model, self.criterion, self.optimizer, self.rate_factor = model, criterion, optimizer, rate_factor
        self.train_loader, self.val_loader, self.settings = train_loader, val_loader, settings
        self.run, self.classes, self.palette, self.device, self.extra = run, classes, palette, device, extra
        self.normalise = Normalise(model.mean, model.std, device)
        self.memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        model.to(memory_format=self.memory_format)
        self.ema = None
        if settings.ema_decay:
            average = get_ema_multi_avg_fn(settings.ema_decay)
            self.ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self.network = wrap(model, device)
        if settings.compile:
            self.network = torch.compile(self.network)
        self.amp_type = AMP_TYPES[settings.amp]
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.steps_per_epoch = train_loader.batch_sampler.steps_per_epoch
        self.last_step = settings.epochs * self.steps_per_epoch
        if settings.max_steps is not None:
            self.last_step = min(self.last_step, settings.max_steps)
        self.epoch = self.step = 0  # finished ones
        self.counted_step = 0  # where the last epoch was scored and logged
        self.best_pred, self.has_best = 0.0, False
        self.epoch_losses, self.epoch_seconds = 0.0, 0.0  # sums over the epoch that is under way
        self.scores: dict | None = None  # of the last validation
        self.board: Board | None = None
        self.broken = BrokenFiles()
        self.signals = StopSignals()
        self.wishes = Wishes(stop=0, save=False)

    @property
    def is_finished(self) -> bool:
        """Every step is made, and the last one's epoch is scored and logged."""
        return self.step > self.last_step or self.step == self.last_step == self.counted_step

    def fit(self) -> int:
        """Train to the end. Returns 0, or the number of the signal that stopped it with a checkpoint written."""
        with self.signals:
            if is_main_process():
                self.open_files()
            stopped_by = self.run_epochs()
            if is_main_process():
                self.finish_writing()
            return stopped_by

    def open_files(self) -> None:
        """The run's files as they were at the checkpoint. Raises UserError where they cannot be written."""
        try:
            self.run.cut_back(self.epoch)
            cut_back_events(self.run.path, self.step, self.counted_step)
        except OSError as error:
            raise UserError(f"cannot write into {self.run.path} ({error.strerror}): make room there") from error
        self.board = Board(self.run.path, self.run.writer)
        if self.broken.times or self.run.broken.exists():
            self.run.writer.replace(self.run.broken, self.broken.render())

    def run_epochs(self) -> int:
        while not self.is_finished:
            self.train_one_epoch()
            if self.wishes.stop:
                self.save(self.run.checkpoint)
                return self.wishes.stop
            self.finish_epoch()
            if self.wishes.stop and not self.is_finished:
                return self.wishes.stop
        return 0

    def finish_writing(self) -> None:
        """Raise RunFailed where files of the run still cannot be written."""
        self.run.writer.retry()
        if unwritten := self.run.writer.unwritten:
            raise RunFailed(
                f"{unwritten[0]} could not be written ({len(unwritten)} files of the run are older than its step "
                f"{self.step}): make room there and go on with --resume auto"
            )

    def is_epoch_complete(self) -> bool:
        """All steps of the epoch are made, but it is not yet scored and counted."""
        return self.step == (self.epoch + 1) * self.steps_per_epoch

    def train_one_epoch(self) -> None:
        """Go on to the epoch's end, the run's last step, or the step after which `wishes` has a stop."""
        first = self.step - self.epoch * self.steps_per_epoch
        end = min(self.steps_per_epoch, self.last_step - self.epoch * self.steps_per_epoch)
        if first >= end:
            return
        self.network.train()
        tune_convolutions(True)
        self.train_loader.batch_sampler.set_position(self.epoch, first)
        parts = iter(self.train_loader)
        seconds_before, start = self.epoch_seconds, time.monotonic()
        with progress(f"epoch {self.epoch + 1}/{self.settings.epochs}", first, self.steps_per_epoch) as bar:
            for step_in_epoch in range(first, end):
                loss = self.train_step([next(parts) for _ in range(self.settings.accumulate)])
                self.epoch_losses += loss
                self.epoch_seconds = seconds_before + time.monotonic() - start
                speed = (step_in_epoch + 1 - first) * self.settings.batch_size / (time.monotonic() - start)
                bar.set_postfix_str(f"loss {loss:.4f}, lr {self.learning_rate:.2e}, {speed:.1f} pictures/s", False)
                bar.update()
                self.after_step(loss, speed)
                if self.wishes.stop:
                    return

    def train_step(self, parts: list[dict]) -> float:
        """One optimizer step from `parts`. Returns its loss; `wishes` is what some process was asked for meanwhile."""
        seed_everything(self.settings.seed, self.step, rank())
        self.set_rates(self.step)
        self.optimizer.zero_grad()
        # Gradients are collected for the sum of the losses over a constant, then scaled to the mean over the labelled
        # pixels of the whole batch, whose count no part knows alone. The constant keeps fp16 within its range.
        pixels = sum(part["label"].numel() for part in parts) * world_size()
        sums = [self.backward(part, pixels, is_last=part is parts[-1]) for part in parts]
        broken = broken_files(parts)
        # One exchange a step carries all that the processes must agree on
        total, weight, num_broken, *asked = self.reduce(sums, [float(len(broken)), *self.signals.take()])
        self.wishes = self.signals.read(asked)
        if num_broken:
            self.note_broken(of_all(broken))
        loss = total / weight if weight else total
        if not math.isfinite(loss):
            self.give_up(loss, parts)
        self.update(scale=pixels * world_size() / weight if weight else 0.0)
        return loss

    def backward(self, part: dict, pixels: int, *, is_last: bool) -> Tensor:
        """Add the gradients of `part`'s summed loss / `pixels`. Returns (sum, weight) on the device."""
        image = part["image"].to(self.device, non_blocking=True)
        label = part["label"].to(self.device, non_blocking=True).long()
        image = self.normalise(image).contiguous(memory_format=self.memory_format)
        # Gradients of several parts are exchanged once, with the last
        is_waiting = world_size() > 1 and not is_last
        with self.network.no_sync() if is_waiting else contextlib.nullcontext():
            with torch.autocast(self.device.type, self.amp_type, enabled=self.amp_type is not None):
                logits = self.network(image)
            total, weight = self.criterion(logits.float(), label)
            self.scaler.scale(total / pixels).backward()
        return torch.stack([total.detach(), weight.detach()])

    def set_rates(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.rate_factor(step)

    def give_up(self, loss: float, parts: list[dict]) -> None:
        ids = of_all([key for part in parts for key in part["id"]])
        raise RunFailed(
            f"the loss is {loss} at epoch {self.epoch + 1}, step {self.step + 1}, samples {', '.join(ids)}: nothing "
            f"was learnt from it and {self.run.checkpoint.name} is as before; look at these samples, or lower --lr"
        )

    def reduce(self, sums: list[Tensor], more: list[float]) -> list[float]:
        """Sums over parts and processes."""
        mine = torch.stack(sums).cpu().double().sum(0)  # the step's one wait for the device
        return self.all_sums([*mine.tolist(), *more])

    def all_sums(self, values: list[float]) -> list[float]:
        """Each value's sum over the processes."""
        return all_reduce(torch.tensor(values, dtype=torch.float64, device=self.reduce_device)).tolist()

    @property
    def reduce_device(self) -> torch.device:
        """NCCL reduces on the GPU alone; MPS has no float64, and no processes to reduce over."""
        return self.device if self.device.type == "cuda" else torch.device("cpu")

    def update(self, *, scale: float) -> None:
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch._foreach_mul_(gradients, scale)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def after_step(self, loss: float, speed: float) -> None:
        self.step += 1
        if self.board and self.step % BOARD_EVERY == 0:
            self.board.scalars(
                {"train/loss": loss, "train/lr": self.learning_rate, "train/pictures_per_second": speed}, self.step
            )
        is_due = self.settings.save_every and self.step % self.settings.save_every == 0
        # The end of an epoch or of the run saves by itself
        if (is_due or self.wishes.save) and not self.is_epoch_complete() and self.step < self.last_step:
            self.save(self.run.checkpoint)
        if self.wishes.save and is_main_process():
            tqdm.write(f"asked for by SIGUSR1: checkpoint of step {self.step}", file=sys.stdout)

    def note_broken(self, paths: list[str]) -> None:
        """Count files that were left out, and list them in the run folder."""
        new = self.broken.add(paths)
        if paths and is_main_process():
            for path in new:
                tqdm.write(f"left out: {path} cannot be decoded (see {self.run.broken.name})", file=sys.stdout)
            self.run.writer.replace(self.run.broken, self.broken.render())

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def finish_epoch(self) -> None:
        """Score, log and save; the best checkpoint before the latest, so that no moment loses it.

        A signal may cut the scoring short: then the epoch stays uncounted, and is scored by the run that goes on.
        """
        is_whole = self.is_epoch_complete()
        steps = self.step - self.epoch * self.steps_per_epoch
        number = self.epoch + 1
        row = {"epoch": number, "step": self.step, "train_loss": self.epoch_losses / max(1, steps)}
        is_due = number % self.settings.eval_interval == 0 or self.step >= self.last_step
        scores = None
        if self.val_loader is not None and is_due:
            self.save(self.run.checkpoint)  # scoring may take long: a kill in it must not cost the epoch
            scores = self.validate()
            if scores is None:
                return
        row |= {f"val_{name}": scores[name] if scores else None for name in ("miou", "pixel_accuracy")}
        row |= {"lr": self.learning_rate, "seconds": round(self.epoch_seconds, 2)}
        # The first score counts even if it is 0: there is always a best checkpoint
        is_best = scores is not None and ((scores["miou"] or 0.0) > self.best_pred or not self.has_best)
        self.counted_step = self.step
        if is_whole:
            self.epoch, self.epoch_losses, self.epoch_seconds = number, 0.0, 0.0
        if is_main_process():
            self.report(row, is_best=is_best)
        if is_best:
            self.best_pred, self.has_best = scores["miou"] or 0.0, True
            self.save(self.run.best)
        self.save(self.run.checkpoint)

    def report(self, row: dict, *, is_best: bool) -> None:
        self.run.append_log(row)
        scalars = {"train/epoch_loss": row["train_loss"], "val/miou": row["val_miou"]}
        self.board.scalars(scalars | {"val/pixel_accuracy": row["val_pixel_accuracy"]}, self.step)
        miou = "" if row["val_miou"] is None else f", val mIoU {percent(row['val_miou'])}{' (best)' if is_best else ''}"
        tqdm.write(
            f"epoch {row['epoch']}/{self.settings.epochs}, step {row['step']}: loss {row['train_loss']:.4f}{miou}, "
            f"lr {row['lr']:.2e}, {row['seconds']:.0f} s of training",
            file=sys.stdout,
        )
        sys.stdout.flush()

    def validate(self) -> dict | None:
        """Scores of the averaged network where there is one, else of the trained one; see `ConfusionMatrix.scores`.

        None where a stop signal cut it short in some process.
        """
        model = self.ema.module if self.ema is not None else self.model
        sync_buffers(model)
        batches = UntilStopped(self.val_loader, self.signals)
        confusion, examples = score(
            Predictor(model, self.device), batches, num_classes=len(self.classes), device=self.device,
            num_examples=self.settings.num_examples,
        )  # fmt: skip
        num_cut, *asked = self.all_sums([float(batches.is_cut), *self.signals.take()])
        self.wishes = self.signals.read(asked)
        if num_cut:
            return None
        self.note_broken(of_all(batches.broken))
        self.scores = confusion.scores(self.classes)
        if is_main_process():
            how = {"protocol": "whole", "out_stride": model.output_stride, "step": self.step}
            self.run.writer.replace(self.run.metrics, render_metrics(self.scores, **how))
            self.board.examples(examples, self.palette, self.step)
            self.run.writer.replace(self.run.sheet, png(sheet(examples, self.classes, self.palette)))
        return self.scores

    def save(self, path: Path) -> None:
        self.check_weights()
        if is_main_process():
            self.run.writer.replace(path, to_bytes(self.state()))

    def check_weights(self) -> None:
        """Raise RunFailed rather than put weights in place of good ones that a step without fp16's scaler broke."""
        largest = torch._foreach_norm(list(self.model.parameters()), ord=math.inf)
        if not torch.stack(largest).isfinite().all():
            raise RunFailed(
                f"the weights are not finite after step {self.step}: {self.run.checkpoint.name} is as before; "
                "go on from it with a lower --lr"
            )

    def state(self) -> dict:
        """All that a later process needs to go on as if this one had never stopped."""
        state = {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "counted_step": self.counted_step,
            "best_pred": self.best_pred,
            "has_best": self.has_best,
            "broken": self.broken.times,
            "epoch_losses": self.epoch_losses,
            "epoch_seconds": self.epoch_seconds,
            "classes": list(self.classes),
            "palette": [list(entry) for entry in self.palette],
        } | self.model.expects
        if self.ema is not None:
            state["ema_state_dict"] = self.ema.module.state_dict()
        return state | self.extra

    def resume(self, state: dict) -> None:
        """Take up a run where `state` left it."""
        # A checkpoint of before there were these keys was written when an epoch was counted, or in the middle of one
        counted = {"counted_step": state["epoch"] * self.steps_per_epoch, "has_best": self.run.best.exists()}
        state = counted | {"broken": {}} | state
        self.model.load_state_dict(state["state_dict"])
        restore(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state.get("ema_state_dict", state["state_dict"]))
            self.ema.n_averaged.fill_(state["step"])
        self.broken = BrokenFiles(state["broken"])
        for name in ("epoch", "step", "counted_step", "best_pred", "has_best", "epoch_losses", "epoch_seconds"):
            setattr(self, name, state[name])
        self.set_rates(max(0, self.step - 1))  # what the last step had: the log may be due before the next one


def of_all(values: list) -> list:
    """The values of all processes, in the order of their ranks."""
    return list(chain.from_iterable(gather(values)))
