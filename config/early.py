"""What train.py says of its flags before it imports torch.

python -m config.early FLAGS      # --help or the mistake in FLAGS; prints nothing for good ones
"""

import argparse

from config.resolve import check, with_defaults, with_network, with_recipe
from config.train_flags import train_parser
from dataloaders import build_dataset, root_folder
from modeling import Architecture
from modeling.pretrained import zoo
from utils.flags import answer_early


def check_flags(args: argparse.Namespace, given: set[str]) -> None:
    """Raise the UserError of the run's start, as far as the flags and the absence of the data folder alone tell it.

    What a checkpoint or the config.json of another run decides is left to the start.
    """
    if args.config is not None:
        return
    args = with_recipe(args, given)
    check(args)
    if args.resume is not None:
        return
    if args.weights_from:
        args = with_network(args, given, zoo.released(args.weights_from).architecture.to_config())
    args = with_defaults(args)
    Architecture.from_config(vars(args), num_classes=2)
    if not root_folder(args.dataset, args.data_root).exists():
        build_dataset(args.dataset, "train", root=args.data_root)  # says which folder is missing, and what to do


if __name__ == "__main__":
    answer_early(train_parser(), check_flags)
