"""Repeating a run, finding the one to resume, flags that are nearly right, and a limited validation."""

from config.train_flags import train_parser
from utils.flags import parse


def test_the_start_of_a_flag_is_enough_if_no_other_has_it():
    """Old commands with shortened flags keep working, and count as given."""
    args, given = parse(train_parser(), ["--batch", "3", "--check", "x"])
    assert (args.batch_size, args.checkname) == (3, "x") and given == {"batch_size", "checkname"}
