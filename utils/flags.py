"""How flags are read: a mistake is one line; numbers within bounds, one side of a picture or two."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from errors import UserError


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as all other bad input is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def positive_int(text: str) -> int:
    return checked(int, text, lambda value: value > 0, "a whole number above 0")


def non_negative_int(text: str) -> int:
    return checked(int, text, lambda value: value >= 0, "a whole number, 0 or more")


def positive(text: str) -> float:
    return checked(float, text, lambda value: 0 < value < float("inf"), "a number above 0")


def non_negative(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value < float("inf"), "a number, 0 or more")


def share_of_one(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def share_below_one(text: str) -> float:
    return checked(float, text, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def checked(kind: type, text: str, is_good: Callable, wanted: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not is_good(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def add_size_flag(group, name: str, text: str) -> None:
    """One side for both, or height and width; `two_sides` makes two of either."""
    group.add_argument(name, type=positive_int, nargs="+", metavar=("N", "W"), help=text)


def two_sides(sides: list[int], name: str) -> list[int]:
    """[height, width] of N, or H W."""
    if len(sides) > 2:
        raise UserError(f"{name} {' '.join(map(str, sides))}: give N, or H W")
    return [sides[0], sides[-1]]
