"""`--config FILE`: the flags of an earlier run, from the config.json in its folder."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from config.resolve import OLDER
from modeling.pretrained import zoo
from utils.distributed import print_main
from utils.errors import UserError
from utils.flags import flag
from utils.run.folder import FACTS

# Which run this is and where it computes: each start gives its own
NOT_TAKEN = ("config", "run_dir", "checkname", "resume", "ft", "weights_from", "device", "workers", "cache")
DATA_FOLDERS = ("data_root", "sbd_root")


def with_config(
    args: argparse.Namespace, given: set[str], parser: argparse.ArgumentParser
) -> tuple[argparse.Namespace, set[str]]:
    """The flags with those of the file `args.config` in place of defaults, and the names of all that are not defaults.

    `given`, the flags of the command line, win. Raises UserError for a file that is no config.json of a run, or for a
    value that its flag does not take. Settings that are no flag of this version are named; flags that an older file
    lacks have what that version did, or their defaults.
    """
    path = Path(args.config)
    path = path / "config.json" if path.is_dir() else path
    config = OLDER | read_config(path)
    skipped = set(NOT_TAKEN) | given | ({*DATA_FOLDERS} if is_other_data(args, given, config) else set())
    actions = {action.dest: action for action in parser._actions if action.dest in vars(args)}
    taken = {
        name: read_value(actions[name], config[name], path)
        for name in actions
        if name not in skipped and config.get(name) is not None
    }
    taken |= initial_weights(args, given, config, path)
    print_main(f"flags of {path}")
    for name in sorted(given & set(config) - set(NOT_TAKEN)):
        if getattr(args, name) != config[name]:
            print_main(f"  {flag(name)} {shown(getattr(args, name))} instead of {shown(config[name])}")
    if unknown := sorted(set(config) - set(actions) - set(FACTS)):
        print_main(f"note: this version has no {', '.join(map(flag, unknown))}: not taken from {path}")
    return argparse.Namespace(**vars(args) | taken), given | set(taken)


def read_config(path: Path) -> dict:
    """The content of a run's config.json. Raises UserError for any other file."""
    fix = "give the config.json of a run, or the folder of the run"
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"`config` {path} cannot be read ({error.strerror or error}): {fix}") from error
    except ValueError as error:  # no JSON, or no text
        raise UserError(f"`config` {path} is no complete JSON file: {fix}") from error
    if not isinstance(config, dict) or not {"dataset", "backbone", "commands"} <= set(config):
        raise UserError(f"`config` {path} holds no flags of a run: {fix}")
    return config


def is_other_data(args: argparse.Namespace, given: set[str], config: Mapping) -> bool:
    """Whether the command line names another dataset, which is not in the folders of the file's."""
    return "dataset" in given and args.dataset != config["dataset"]


def read_value(action: argparse.Action, value: object, path: Path) -> object:
    """`value` of JSON as the flag of `action` takes it from the command line. Raises UserError if it does not."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UserError(f"{path}: {action.dest} is {value!r}, not true or false: correct it")
        return value
    if action.nargs == "+":
        if not isinstance(value, list):
            raise UserError(f"{path}: {action.dest} is {value!r}, not a list: correct it")
        return [read_item(action, item, path) for item in value]
    return read_item(action, value, path)


def read_item(action: argparse.Action, value: object, path: Path) -> object:
    try:
        item = (action.type or str)(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UserError(f"{path}: {action.dest} {error}: correct it") from error
    if isinstance(value, list | dict | bool) or (action.choices and item not in action.choices):
        choices = f"one of {', '.join(map(str, action.choices))}" if action.choices else "one value"
        raise UserError(f"{path}: {action.dest} is {value!r}, not {choices}: correct it")
    return item


def initial_weights(args: argparse.Namespace, given: set[str], config: Mapping, path: Path) -> dict:
    """The flags that give the weights that the run of `config` started from, also if it was resumed later.

    The command line may name others, or a run to resume. Raises UserError if --resume auto leaves no flag for them.
    """
    source = config.get("initial_weights", config.get("weights_from") or (config.get("ft") and config.get("resume")))
    if not source or {"ft", "weights_from"} & given or args.resume not in (None, "auto"):
        return {}
    if not isinstance(source, str):
        raise UserError(f"{path}: initial_weights is {source!r}, not a name or path: correct it")
    if source in zoo.SEGMENTATION:
        return {"weights_from": source}
    if args.resume:
        raise UserError(f"the run of {path} started from the weights {source}: start without --resume auto")
    return {"ft": True, "resume": source}


def shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
