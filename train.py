"""Train DeepLabV3+, score it on the validation split, keep the checkpoints.

python train.py --backbone resnet --dataset pascal
torchrun --nproc-per-node 8 train.py --backbone resnet --dataset pascal
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import build
import options
from engine import Trainer
from errors import UserError
from modeling import zoo
from modeling.weights import read_source
from utils.checkpoint import read_checkpoint
from utils.device import make_deterministic, select_device
from utils.distributed import is_main_process, process_group, say, share
from utils.environment import describe_environment
from utils.metrics import table
from utils.preemption import setting_up
from utils.run_folder import RunFolder, newest_checkpoints
from utils.seeding import seed_everything

__all__ = ["Trainer", "main"]

RUN_KEYS = ("state_dict", "optimizer", "epoch", "step", "config", "classes")


def main(argv: Sequence[str] | None = None) -> int:
    args, given = options.parse(options.train_parser(), argv)
    return options.run_command(lambda: train(args, given))


def train(args: argparse.Namespace, given: set[str]) -> int:
    device = select_device(args.device)
    with setting_up(), process_group(device):
        state = find_checkpoint(args, given)
        if args.deterministic:
            make_deterministic()
        seed_everything(args.seed)
        train_set, val_set = build.datasets(args, state)
        model = build.network(args, train_set.classes, state).to(device)
        loaders = build.loaders(args, model, train_set, val_set, device)
        optimizer = build.optimizer(args, model)
        criterion = build.criterion(args, train_set).to(device)
        factor = build.schedule(args, loaders[0].batch_sampler.steps_per_epoch)
        config = vars(args) | describe_environment() | {"dataset_sizes": build.sizes(train_set, val_set)}
        build.describe(args, model, loaders[0], config, device)
        trainer = Trainer(
            model, criterion, optimizer, factor, *loaders,
            settings=build.settings(args), run=open_run(args, state), classes=train_set.classes,
            palette=train_set.palette, device=device, extra={"config": config},
        )  # fmt: skip
        if state is not None and not args.ft:
            take_up(trainer, state, args.resume)
        return finish(trainer, config)


def find_checkpoint(args: argparse.Namespace, given: set[str]) -> dict | None:
    """The checkpoint that --resume names or finds, or weights to start from (then `args.ft` is set).

    `args` takes over what a resumed run keeps.
    """
    if args.ft and args.resume not in (None, "auto"):
        state = read_source(args.resume)
        options.take_network(args, given, state.get("config", {}))
        options.fill_defaults(args)
        return state
    if args.weights_from:
        options.take_network(args, given, zoo.released(args.weights_from).network)
    options.fill_defaults(args)
    if args.resume == "auto":
        args.resume = share(newest_run(runs_folder(args)) if is_main_process() else None)
        say(f"resuming {args.resume}" if args.resume else "nothing to resume: a fresh start")
    if args.resume is None:
        args.ft = args.weights_from is not None
        return read_source(zoo.get(zoo.released(args.weights_from).url)) if args.ft else None
    state = read_run(args.resume)
    options.keep_from_checkpoint(args, given, state["config"])
    return state


def read_run(path: str) -> dict:
    """A checkpoint to go on from. Raises UserError where it is none."""
    state = read_checkpoint(path)
    if not set(RUN_KEYS) <= set(state) or not isinstance(state["config"], dict):
        raise UserError(f"{path} holds weights but no run to go on with: add --ft to start from the weights")
    return state


def newest_run(runs: Path) -> str | None:
    """The newest checkpoint that can be gone on from; says which newer ones are passed over, and why."""
    for path in newest_checkpoints(runs):
        try:
            read_run(str(path))
        except UserError as error:
            say(f"passing over {error.line()}")
        else:
            return str(path)
    return None


def take_up(trainer: Trainer, state: dict, source: str) -> None:
    try:
        trainer.resume(state)
    except (LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        trainer.run.discard_if_empty()
        what = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{source} does not fit the run it says it is of ({type(error).__name__}: {what}): "
            "give another checkpoint, or add --ft to start a new run from its weights"
        ) from error


def runs_folder(args: argparse.Namespace) -> Path:
    return Path(args.run_dir) / args.dataset / args.checkname


def open_run(args: argparse.Namespace, state: dict | None) -> RunFolder:
    """A new folder, or that of the checkpoint which is resumed."""
    if state is not None and not args.ft and (Path(args.resume).parent / "config.json").is_file():
        return RunFolder(Path(args.resume).parent)
    return RunFolder(Path(share(str(RunFolder.create(runs_folder(args)).path) if is_main_process() else "")))


def finish(trainer: Trainer, config: dict) -> int:
    if trainer.is_finished:
        say(f"{trainer.run.path} is finished at step {trainer.step}: nothing to do")
        return 0
    if is_main_process():
        trainer.run.write_config(config)
    say(f"run folder {trainer.run.path}")
    if stopped_by := trainer.fit():
        say(f"stopped by signal {stopped_by} after step {trainer.step}; go on with --resume {trainer.run.checkpoint}")
        return 128 + stopped_by
    if trainer.scores:
        say(f"{table(trainer.scores)}\nprotocol whole, stride {trainer.model.output_stride}")
        say(f"best val mIoU {100 * trainer.best_pred:.2f}; {trainer.run.best}\nsheet {trainer.run.sheet}")
    if trainer.broken.times:
        say(f"{trainer.broken}; {trainer.run.broken}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
