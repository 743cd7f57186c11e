"""What a training run writes: checkpoints, log, TensorBoard, the scores of a validation, and lines for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from utils.distributed import is_main_process
from utils.errors import RunFailed, writing
from utils.palettes import Palette
from utils.progress import print_above_bar
from utils.run.broken import BrokenFiles
from utils.run.checkpoint import write_pickle
from utils.run.environment import describe_machine
from utils.run.files import write_atomically
from utils.run.folder import RunFolder
from utils.run.kept import keep
from utils.run.report.content import Report
from utils.run.report.page import render_report
from utils.run.snapshot import HostBuffers, Snapshot
from utils.run.tensorboard import TensorBoardLogger, truncate_events
from utils.run.weights_file import write_safetensors
from utils.scoring.curves import plot_curves
from utils.scoring.gallery import NUM_SHEET_ROWS, Gallery, evenly_spaced
from utils.scoring.metrics import percent, render_metrics
from utils.scoring.samples import Sample, sample_sheet
from utils.scoring.sheet import grid
from utils.scoring.visualize import png

TENSORBOARD_INTERVAL = 10  # steps between two scalars of the training loss
METRICS = ("val/miou", "val/loss", "train/epoch_loss")  # beside the hyperparameters in TensorBoard


class Recorder:
    """Writes the files of a run into `folder`, on the first process alone.

    `extra`: plain values that every checkpoint holds beside the state of the trainer. `changed`: the names in its
    `config` that differ from the defaults. `num_kept`: of --keep.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        classes: Sequence[str],
        palette: Palette,
        extra: Mapping,
        changed: Sequence[str] = (),
        num_kept: int = 0,
    ):
        self.folder, self.classes, self.palette = folder, classes, palette
        self.extra = {"classes": list(classes), "palette": [list(color) for color in palette]} | extra
        self.changed, self.num_kept = changed, num_kept
        self.buffers = HostBuffers()
        self.rows: list[dict] = []  # of the log
        self.show_validation: Callable[[], bytes] | None = None  # makes the report, until it is written
        self.broken = BrokenFiles()
        self.scores: dict = {}  # of the last validation, after the settings that they depend on
        self.tensorboard: TensorBoardLogger | None = None

    def restore(self, state: Mapping) -> None:
        """Continue what the checkpoint `state` counted, in its colors."""
        self.broken = BrokenFiles(state.get("broken", {}))
        if "palette" in state:
            self.palette = [tuple(color) for color in state["palette"]]
            self.extra["palette"] = state["palette"]

    def open(self, epoch: int, step: int, last_logged_step: int) -> None:
        """Truncate log and events to the position of the checkpoint. Raises UserError if they cannot be written."""
        if not is_main_process():
            return
        self.folder.writer.wait()  # first_batch.png: `truncate_to` removes partial files
        with writing(self.folder.path, "make room there"):
            self.folder.truncate_to(epoch)
            truncate_events(self.folder.path, step, last_logged_step)
            self.rows = self.folder.read_log()
        self.tensorboard = TensorBoardLogger(self.folder.path, self.folder.writer)
        if step == 0 and "config" in self.extra:
            self.tensorboard.hyperparameters(self.extra["config"], METRICS)
        if self.broken.times or self.folder.broken.exists():
            self.folder.writer.replace(self.folder.broken, self.broken.render())

    @property
    def limit(self) -> dict:
        """With --limit-val, what the scores depend on beside the protocol; else empty."""
        config = self.extra.get("config", {})
        number = config.get("limit_val")
        return {"limit_val": number, "pictures": min(number, config["dataset_sizes"]["val"])} if number else {}

    @property
    def limit_text(self) -> str:
        return f" on {self.limit['pictures']} images (--limit-val)" if self.limit else ""

    def draw_first_batch(self, samples: Sequence[Sample]) -> None:
        """Draw samples of the first batch as the network gets them."""
        sheet = sample_sheet(samples, self.classes, self.palette, title=f"first batch: {len(samples)} samples")
        self.folder.writer.replace(self.folder.first_batch, png(sheet))

    def log_step(self, step: int, *, loss: float, lr: float, images_per_second: float) -> None:
        if self.tensorboard and step % TENSORBOARD_INTERVAL == 0:
            values = {"train/loss": loss, "train/lr": lr, "train/pictures_per_second": images_per_second}
            self.tensorboard.scalars(values, step)

    def log_validation(self, scores: dict, counts: Tensor, gallery: Gallery, *, step: int, out_stride: int) -> None:
        """`counts` int64 [K, K] of the confusion matrix."""
        if not is_main_process():
            return
        settings = {"protocol": "whole", "out_stride": out_stride, "step": step} | self.limit
        self.scores = settings | scores
        self.folder.writer.replace(self.folder.metrics, render_metrics(scores, **settings))
        examples = evenly_spaced(gallery.spread, NUM_SHEET_ROWS)
        self.tensorboard.examples(examples, self.palette, step)
        self.folder.writer.replace(self.folder.sheet, png(grid(examples, self.classes, self.palette)))
        self.show_validation = lambda: render_report(self.report(counts, gallery))  # once the log has its row

    def log_epoch(self, row: dict, *, is_best: bool, num_epochs: int) -> None:
        """`row`: what log.jsonl holds of an epoch."""
        if not is_main_process():
            return
        row |= self.limit if row["val_miou"] is not None else {}
        self.folder.append_log(row)
        self.rows.append(row)
        scalars = {"train/epoch_loss": row["train_loss"]}
        scalars |= {f"val/{name}": row[f"val_{name}"] for name in ("loss", "miou", "pixel_accuracy")}
        scalars |= {f"val/iou/{name}": iou for name, iou in (row["val_iou"] or {}).items()}
        self.tensorboard.scalars(scalars, row["step"])
        if row["val_iou"] is not None:
            self.draw_curves()
        miou = "" if row["val_miou"] is None else f", val mIoU {percent(row['val_miou'])}{self.limit_text}"
        miou += " (best)" if is_best else ""
        print_above_bar(
            f"epoch {row['epoch']}/{num_epochs}, step {row['step']}: loss {row['train_loss']:.4f}{miou}, "
            f"lr {row['lr']:.2e}, {row['seconds']:.0f} s of training"
        )
        self.write_report()

    def draw_curves(self) -> None:
        """Draw the log as curves.png. An error in it ends no run."""
        try:
            png_data = plot_curves({"": self.rows}, title=str(self.folder.path))
        except Exception as error:
            print_above_bar(f"note: {self.folder.curves} could not be drawn ({type(error).__name__}: {error})")
        else:
            self.folder.writer.replace(self.folder.curves, png_data)

    def write_report(self) -> None:
        """Write the page of the validation since the last call, if there was one. An error in it ends no run."""
        render, self.show_validation = self.show_validation, None
        if render is None:
            return
        try:
            page = render()
        except Exception as error:
            note_failure(self.folder.report, error)
        else:
            self.folder.writer.replace(self.folder.report, page)

    def report(self, counts: Tensor, gallery: Gallery) -> Report:
        config = self.extra.get("config", {})
        versions = {name: config[name] for name in ("versions", "commit", "dataset_sizes") if name in config}
        settings = {name: value for name, value in self.scores.items() if not isinstance(value, float | dict)}
        return Report(
            title=f"{config.get('dataset')} · {config.get('backbone')}", subtitle=str(self.folder.path),
            classes=self.classes, palette=self.palette, scores=self.scores, settings=settings, counts=counts.numpy(),
            config=config, machine=describe_machine() | versions, changed=self.changed, spread=gallery.spread,
            worst=gallery.worst, image_scores=gallery.rows, rows=self.rows, commands=config.get("commands", []),
        )  # fmt: skip

    def add_broken(self, paths: Sequence[str]) -> None:
        """Count files that were skipped, of all processes, and list them in the run folder."""
        new = self.broken.add(paths)
        for path in new:
            print_above_bar(f"left out: {path} cannot be decoded (see {self.folder.broken.name})")
        if paths and is_main_process():
            self.folder.writer.replace(self.folder.broken, self.broken.render())

    def save(self, state: Callable[[], dict], *, is_best: bool = False) -> None:
        """Copy `state()`, and let a thread write it as the latest checkpoint; before that as the best one, with its
        scores, and its weights alone.

        One checkpoint at most is being written and one waits, whose place a newer one takes unless it is to be kept.
        """
        if not is_main_process():
            return
        folder, writer = self.folder, self.folder.writer
        writer.wait_until_begun(folder.best)
        if self.num_kept:
            writer.wait_until_begun(folder.checkpoint)
        else:
            writer.discard(folder.checkpoint)
        snapshot = self.buffers.copy(state() | {"broken": self.broken.times} | self.extra)
        # In this order: a run that is resumed from the best checkpoint does not write the weights again, and a kill
        # before the latest is complete does not lose the best
        if is_best:
            scores = {"scores": self.scores}
            writer.write(folder.best_weights, partial(write_weights, folder.best_weights, snapshot, scores))
            writer.write(folder.best, partial(write_whole, folder.best, snapshot, scores))
        writer.write(folder.checkpoint, partial(write_latest, folder.checkpoint, snapshot, self.num_kept))

    def wait(self) -> None:
        """Until what was saved is on disk."""
        self.folder.writer.wait()

    def abort(self, error: BaseException) -> None:
        """The run ends by `error`: what was saved before is written, as far as it can be.

        After a second SIGINT only the file that is being written is completed.
        """
        if isinstance(error, KeyboardInterrupt):
            self.folder.writer.discard()
        self.folder.writer.settle()

    def close(self, step: int) -> None:
        """Wait for the files of the run. Raises RunFailed if some cannot be written."""
        if not is_main_process():
            return
        self.folder.writer.retry()
        self.folder.writer.wait()
        if unwritten := self.folder.writer.unwritten:
            raise RunFailed(
                f"{unwritten[0]} could not be written ({len(unwritten)} files of the run are older than its step "
                f"{step}): make room there and continue with --resume auto"
            )


def write_whole(path: Path, snapshot: Snapshot, more: Mapping) -> None:
    """Write all of `snapshot` and the plain values `more`. Raises OSError."""
    write_atomically(path, partial(write_pickle, snapshot.checkpoint(more)))


def write_latest(path: Path, snapshot: Snapshot, num_kept: int) -> None:
    write_whole(path, snapshot, {})
    if num_kept:
        keep(path, snapshot.content["step"], num_kept)


def write_weights(path: Path, snapshot: Snapshot, more: Mapping) -> None:
    """Write the weights of `snapshot` alone. Raises OSError."""
    snapshot.wait()
    write_atomically(path, partial(write_safetensors, snapshot.content | more))


def note_failure(path: Path, error: Exception) -> None:
    """One line about a page that could not be made."""
    print_above_bar(f"note: {path} could not be made ({type(error).__name__}: {error}); the run continues without it")
