"""How a run starts: new, from weights, or resumed."""

import argparse
from collections.abc import Mapping
from typing import NamedTuple

from config.resolve import runs_folder, with_checkpoint, with_defaults, with_network
from modeling.pretrained import zoo
from modeling.pretrained.load import read_released, read_source
from utils.distributed import broadcast, is_main_process, print_main
from utils.run.resume import newest_run, read_run


class Start(NamedTuple):
    """The flags as they hold for the run, and its `checkpoint`, or the `weights` (from `source`) of a new run."""

    args: argparse.Namespace
    checkpoint: dict | None = None
    weights: Mapping | None = None
    source: str | None = None

    @property
    def commands(self) -> list[str]:
        """Those that a resumed run was started and resumed with so far."""
        return self.checkpoint["config"].get("commands", []) if self.checkpoint else []


def find_start(args: argparse.Namespace, given: set[str]) -> Start:
    """What the flags --resume, --ft and --weights-from ask for. `given`: the flags of the command line."""
    if args.ft and args.resume not in (None, "auto"):
        weights = read_source(args.resume)
        args = with_defaults(with_network(args, given, weights.get("config", {})))
        return Start(args, weights=weights, source=args.resume)
    if args.weights_from:
        args = with_network(args, given, zoo.released(args.weights_from).architecture.to_config())
    args = with_defaults(args)
    if args.resume == "auto":
        args.resume = broadcast(newest_run(runs_folder(args)) if is_main_process() else None)
        print_main(f"resuming {args.resume}" if args.resume else "nothing to resume: a fresh start")
    if args.resume is not None:
        checkpoint = read_run(args.resume)
        return Start(with_checkpoint(args, given, checkpoint["config"]), checkpoint=checkpoint, source=args.resume)
    if args.weights_from:
        args.ft = True
        return Start(args, weights=read_released(args.weights_from), source=args.weights_from)
    return Start(args)
