"""How a run starts: new, from weights, or resumed."""

import argparse
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from config.from_file import with_config
from config.resolve import runs_folder, with_checkpoint, with_defaults, with_network, with_recipe
from config.train_flags import train_parser
from modeling.pretrained import zoo
from modeling.pretrained.load import read_released, read_source
from utils.distributed import broadcast, is_main_process, print_main
from utils.run.folder import newest_of_others
from utils.run.resume import find_checkpoint, newest_run, read_run


class Start(NamedTuple):
    """The flags as they hold for the run, and its `checkpoint`, or the `weights` (from `source`) of a new run."""

    args: argparse.Namespace
    checkpoint: dict | None = None
    weights: Mapping | None = None
    source: str | None = None

    def facts(self, command: str) -> dict:
        """How the run came about, for its config: all commands with this one, and `initial_weights`."""
        before = self.checkpoint["config"].get("commands", []) if self.checkpoint else []
        commands = [*dict.fromkeys([*before, command])]  # a requeued job repeats the last
        return {"commands": commands, "initial_weights": self.initial_weights}

    @property
    def initial_weights(self) -> str | None:
        """What the whole network's weights were taken from at the first start: a file, or a name of --weights-from."""
        if self.checkpoint:
            return self.checkpoint["config"].get("initial_weights")
        return self.source if self.weights is not None else None


def find_start(args: argparse.Namespace, given: set[str]) -> Start:
    """What --config, --resume, --ft and --weights-from ask for. `given`: the flags of the command line."""
    if args.config is not None:
        args, given = with_config(args, given, train_parser())
    args = with_recipe(args, given)
    if args.resume not in (None, "auto"):
        args.resume = find_checkpoint(args.resume)
    if args.ft and args.resume not in (None, "auto"):
        weights = read_source(args.resume)
        args = with_defaults(with_network(args, given, weights.get("config", {})))
        return Start(args, weights=weights, source=args.resume)
    if args.weights_from:
        args = with_network(args, given, zoo.released(args.weights_from).architecture.to_config())
    args = with_defaults(args)
    if args.resume == "auto":
        args.resume = find_newest(args)
    if args.resume is not None:
        checkpoint = read_run(args.resume)
        return Start(with_checkpoint(args, given, checkpoint["config"]), checkpoint=checkpoint, source=args.resume)
    if args.weights_from:
        args.ft = True
        return Start(args, weights=read_released(args.weights_from), source=args.weights_from)
    return Start(args)


def find_newest(args: argparse.Namespace) -> str | None:
    """The checkpoint that --resume auto continues from; says if there is none, and which run may be meant instead."""
    runs = runs_folder(args)
    found = broadcast(newest_run(runs) if is_main_process() else None)
    if found:
        print_main(f"resuming {found}")
    elif other := newest_of_others(runs):
        print_main(
            f"nothing to resume in {runs}: a fresh start; the newest run of {args.dataset} is {other}: to continue it, "
            f"stop this one and give --checkname {shlex.quote(other.parent.name)}"
        )
    else:
        print_main("nothing to resume: a fresh start")
    return found
