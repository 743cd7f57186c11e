"""The value of --loss-type: a loss, or a weighted sum of several such as ce:0.375+dice:1.125."""

import math

from utils.constants import LOSSES
from utils.errors import UserError
from utils.suggest import did_you_mean


def loss_terms(text: str) -> dict[str, float]:
    """{name: weight} of the terms, 1 for a term without one. Raises UserError for an unknown name or a bad weight."""
    terms: dict[str, float] = {}
    for term in text.split("+"):
        name, colon, number = term.strip().partition(":")
        if name not in LOSSES:
            choices = ", ".join(LOSSES)
            raise UserError(f"unknown loss {name!r}: choose one of {choices}{did_you_mean(name, LOSSES)}")
        if name in terms:
            raise UserError(f"`loss_type` {text} names {name} twice: add its weights")
        terms[name] = positive_weight(number, text) if colon else 1.0
    return terms


def positive_weight(number: str, text: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(f"`loss_type` {text}: {number!r} is no weight: give a number above 0, as in ce:0.5+dice:1")
    return weight
