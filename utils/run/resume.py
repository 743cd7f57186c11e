"""Find the checkpoint of a run, and continue from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from utils.distributed import print_main
from utils.errors import UserError
from utils.hf_hub import is_address
from utils.run.checkpoint import read_checkpoint
from utils.run.folder import CHECKPOINT, newest_checkpoints, runs_below
from utils.run.weights_file import WEIGHTS

RUN_KEYS = ("state_dict", "optimizer", "epoch", "step", "config", "classes")


class Resumable(Protocol):
    best_miou: float | None

    def load_state_dict(self, state: dict) -> None: ...


def read_run(path: str | Path) -> dict:
    """A checkpoint that a run can be resumed from. Raises UserError for any other file."""
    is_published = is_address(path) or (Path(path) / WEIGHTS).is_file()
    state = {} if is_published else read_checkpoint(path)
    if not set(RUN_KEYS) <= set(state) or not isinstance(state["config"], dict):
        raise UserError(f"{path} holds weights but no run to resume: add --ft to start from the weights")
    return state


def find_checkpoint(path: str | Path) -> str:
    """The checkpoint that `path` means: of a run folder its latest; any other path is returned as it is.

    Raises UserError for a folder above those of runs, with the newest run in it.
    """
    if is_address(path) or not Path(path).is_dir():
        return str(path)
    if (checkpoint := Path(path) / CHECKPOINT).is_file():
        return str(checkpoint)
    if runs := runs_below(Path(path), *(f"{'*/' * depth}experiment_*/{CHECKPOINT}" for depth in range(3))):
        raise UserError(
            f"{path} holds {len(runs)} {'run' if len(runs) == 1 else 'runs'}: name one, such as the newest, "
            f"`resume` {runs[0]}"
        )
    return str(path)


def newest_run(runs: Path) -> str | None:
    """The newest resumable checkpoint; prints which newer ones are skipped, and why."""
    for path in newest_checkpoints(runs):
        try:
            read_run(path)
        except UserError as error:
            print_main(f"skipped: {error.line()}")
        else:
            return str(path)
    return None


def require_same_classes(checkpoint: Mapping, classes: Sequence[str], source: str) -> None:
    """Raise UserError if the run was trained on other classes than those of the data."""
    stored = checkpoint["classes"]
    if list(classes) != stored:
        raise UserError(
            f"{source} has {len(stored)} classes ({', '.join(stored[:3])}, ...), the data {len(classes)} "
            f"({', '.join(classes[:3])}, ...): give the data it was trained on, or add --ft"
        )


def restore(trainer: Resumable, checkpoint: dict, source: str, *, limit_val: int | None = None) -> None:
    """Load the state of the run, without its best mIoU if validation now scores another number of images, `limit_val`.

    Raises UserError for a checkpoint whose content does not fit its own flags.
    """
    try:
        trainer.load_state_dict(checkpoint)
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        what = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{source} does not fit the run that its settings describe ({type(error).__name__}: {what}): "
            "give another checkpoint, or add --ft to start a new run from its weights"
        ) from error
    if trainer.best_miou is not None and checkpoint["config"].get("limit_val") != limit_val:
        trainer.best_miou = None
        print_main("--limit-val changes the images that are scored: the next validation starts a new best mIoU")
