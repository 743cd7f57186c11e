"""Which flags of a run differ from what they would be without the command line."""

import argparse

from config.resolve import with_defaults
from config.train_flags import train_parser


def changed_flags(args: argparse.Namespace) -> list[str]:
    """The names of the flags whose values differ from the defaults for this dataset and backbone, in their order.

    `args` as `with_defaults` returns them.
    """
    plain = train_parser().parse_args([])
    plain.dataset = args.dataset
    backbone = with_defaults(plain).backbone
    plain.backbone = args.backbone
    defaults = vars(with_defaults(plain)) | {"dataset": None, "backbone": backbone}
    return [name for name, value in vars(args).items() if name not in defaults or value != defaults[name]]
