"""How the commands read flags and end: types with bounds, one line for a mistake, the exit status."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from utils.distributed.failure import exit_at_once, is_one_of_several, lost_connection, wait_for_torchrun
from utils.errors import RunFailed, UserError
from utils.suggest import did_you_mean

# Parameters whose flag has another name; every other flag is --name-of-the-parameter
FLAGS = {
    "output_stride": "--out-stride", "root": "--data-root", "window": "--crop-size", "is_partial": "--partial-weights",
}  # fmt: skip
EXPECTED = (UserError, RunFailed, KeyboardInterrupt)  # errors without a traceback


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as every other bad input, and names the nearest flag or choice.

    A flag may be shortened to a start that no other flag has.
    """

    words: Sequence[str] = ()  # of the command line

    def parse_known_args(self, args=None, namespace=None):
        self.words = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}{self.nearest_flag()} (see {self.prog} --help)\n")

    def nearest_flag(self) -> str:
        """Names the flag nearest to the first unknown one, which may be why a required flag is missing."""
        flags = [name for action in self._actions for name in action.option_strings]
        shown = [name for action in self._actions if not is_hidden(action) for name in action.option_strings]
        for word in self.words:
            name = word.partition("=")[0]
            if word == "--":
                break
            if name.startswith("--") and not any(known.startswith(name) for known in flags):
                nearest = did_you_mean(name, shown)
                return nearest and f"; {name}{nearest}"
        return ""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(value, action.choices)
            raise


def is_hidden(action: argparse.Action) -> bool:
    return action.help == argparse.SUPPRESS


class DefaultsFormatter(argparse.HelpFormatter):
    """Adds the default of a flag that has one and whose help does not give it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        has_none = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        if has_none or "(default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, set[str]]:
    """The flags, and the names of those that stand on the command line."""
    unset = object()  # argparse keeps what a namespace already has, so this marks the flags that are not given
    names = [action.dest for action in parser._actions if argparse.SUPPRESS not in (action.dest, action.default)]
    args = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, unset)))
    given = {name for name in names if getattr(args, name) is not unset}
    for name in set(names) - given:
        setattr(args, name, parser.get_default(name))
    return args, given


def answer_early(parser: argparse.ArgumentParser, check: Callable[[argparse.Namespace, set[str]], None] | None = None):
    """Exit for --help, and for a mistake in the flags of this process.

    A command calls it when it is started, above the imports that take seconds; its `main` reads the flags again.
    `check(args, given)` raises UserError for flags that do not go together.
    """
    flags = parse(parser, None)
    if check and (status := run_command(lambda: check(*flags) or 0)):
        sys.exit(status)


def flag(parameter: str) -> str:
    """The flag of a parameter: `batch_size` -> --batch-size."""
    return FLAGS.get(parameter, f"--{parameter.replace('_', '-')}")


def with_flags(text: str) -> str:
    """`text` with flags instead of the parameters in backticks."""
    return re.sub(r"`(\w+)`", lambda match: flag(match[1]), text)


def run_command(command: Callable[[], int]) -> int:
    """The exit status of a command: 2 and one line for bad input, 1 and one line for a run that cannot continue, 130
    for Ctrl-C. One of several processes does not return after an error, but exits with this status at once.
    """
    try:
        return command()
    except BaseException as error:
        if is_one_of_several():
            exit_at_once(report_of_rank, error)  # here, as `error` keeps the objects with destructors alive
        if not isinstance(error, EXPECTED):
            raise
        return report(error)


def report(error: BaseException) -> int:
    """Print the line of an error of `EXPECTED`. Returns the exit status."""
    if isinstance(error, UserError):
        write_error(with_flags(error.line()))
        return 2
    if isinstance(error, RunFailed):
        write_error(str(error))
        return 1
    return 130


def report_of_rank(error: BaseException) -> int:
    """Print any error of one of several processes. Returns the exit status."""
    if isinstance(error, EXPECTED):
        return report(error)
    if isinstance(error, SystemExit):  # by SIGTERM
        return error.code
    if reason := lost_connection(error):
        wait_for_torchrun()
        write_error(f"another process is gone ({reason}): see its error, or torchrun's report")
    else:
        traceback.print_exception(error)
    return 1


def write_error(line: str) -> None:
    rank = os.environ.get("RANK", "0")
    prefix = "error: " if rank == "0" else f"rank {rank}: error: "
    sys.stderr.write(f"{prefix}{line}\n")  # in one write, so that the lines of several processes stay apart


def positive_int(text: str) -> int:
    return checked(int, text, lambda value: value > 0, "a whole number above 0")


def positive_int_or_auto(text: str) -> int | str:
    return text if text == "auto" else checked(int, text, lambda value: value > 0, "a whole number above 0, or auto")


def non_negative_int(text: str) -> int:
    return checked(int, text, lambda value: value >= 0, "a whole number, 0 or more")


def positive(text: str) -> float:
    return checked(float, text, lambda value: 0 < value < float("inf"), "a number above 0")


def non_negative(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value < float("inf"), "a number, 0 or more")


def fraction(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def fraction_below_one(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def checked(kind: type, text: str, is_valid: Callable, wanted: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def add_size_flag(group, name: str, text: str) -> None:
    """One side of a square, or height and width; `two_sides` makes two of either."""
    group.add_argument(name, type=positive_int, nargs="+", metavar=("N", "W"), help=text)


def two_sides(sides: list[int], name: str) -> list[int]:
    """[height, width] of N, or H W."""
    if len(sides) > 2:
        raise UserError(f"`{name}` {' '.join(map(str, sides))}: give N, or H W")
    return [sides[0], sides[-1]]
