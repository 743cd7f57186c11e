"""Average the weights of several checkpoints of one network.

    python -m modeling.average A.pth.tar B.pth.tar C.pth.tar --out average.pth [--recompute-bn]

Stochastic weight averaging: Izmailov et al., arXiv 1803.05407. The statistics of batch norm are averaged as well, or
computed again for the new weights on random crops of the training data: that of the first checkpoint's flags.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from utils.errors import UserError, writing
from utils.flags import Parser, answer_early, positive_int, run_command


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m modeling.average", description="Average the weights of several checkpoints.")
    add = parser.add_argument
    add("sources", nargs="+", metavar="CHECKPOINT", help="two or more of one network; averaged weights (--ema) win")
    add("--out", required=True, type=Path, metavar="FILE", help="where to write it; x.safetensors: in that format")
    add("--recompute-bn", action="store_true", help="compute batch norm's statistics again, on training crops")
    add("--num-batches", type=positive_int, default=50, metavar="N", help="--recompute-bn: batches, of the size of "
        "the training (default: 50)")  # fmt: skip
    add("--data-root", metavar="DIR", help="--recompute-bn: folder of the data (default: that of the training)")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

from torch import Tensor
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from dataloaders import build_dataset, train_loader
from modeling.architecture import Architecture
from modeling.deeplab import DeepLab
from modeling.pretrained.load import load_weights, read_source, state_of
from utils.inference import Normalize
from utils.progress import progress
from utils.run.checkpoint import is_ours, write_checkpoint
from utils.run.weights_file import describe


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: write_average(args))


def write_average(args: argparse.Namespace) -> int:
    if len(args.sources) < 2:
        raise UserError(f"{args.sources[0]} alone has no average: give two or more checkpoints")
    contents = [read_ours(source) for source in args.sources]
    for content, source in zip(contents[1:], args.sources[1:], strict=True):
        require_same_network(contents[0], content, args.sources[0], source)
    # What the last of the runs scored does not hold for their average
    content = {key: value for key, value in describe(contents[0]).items() if key not in ("scores", "best_pred")}
    content["config"] = content["config"] | {"average_of": list(map(str, args.sources))}
    content["state_dict"] = average([state_of(each) for each in contents])
    if args.recompute_bn:
        model = Architecture.from_config(content["config"], num_classes=len(content["classes"])).build()
        load_weights(model, content)
        recompute_batch_norm(model, content["config"], root=args.data_root, num_batches=args.num_batches)
        content["state_dict"] = model.state_dict()
    with writing(args.out, "give another --out"):
        write_checkpoint(args.out, content)
    print(args.out)
    return 0


def read_ours(source: str) -> Mapping:
    """Raises UserError for a file that is no checkpoint of train.py."""
    content = read_source(source)
    if not is_ours(content):
        raise UserError(f"{source} does not describe its network: convert it by modeling.weights")
    return content


def require_same_network(first: Mapping, other: Mapping, first_source: str, source: str) -> None:
    """Raise UserError unless both have the same entries, classes and preprocessing."""
    own, others = ({name: value.shape for name, value in state_of(each).items()} for each in (first, other))
    if own != others:
        name = next(name for name in [*own, *others] if own.get(name) != others.get(name))
        raise UserError(f"{source} has another {name} than {first_source}: average checkpoints of one network")
    for key in ("classes", "mean", "std", "epsilon", "padding"):
        if first.get(key) != other.get(key):
            raise UserError(f"{source} has other {key} than {first_source}: average checkpoints of one network")


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each floating-point entry, computed in float64; other entries are those of the last state."""
    result = dict(states[-1])
    for name, value in states[-1].items():
        if value.is_floating_point():
            total = sum(state[name].double() for state in states)
            result[name] = (total / len(states)).to(value.dtype)
    return result


def recompute_batch_norm(model: DeepLab, config: Mapping, *, root: str | None, num_batches: int) -> None:
    """Set the statistics of batch norm, in place, to their means over `num_batches` batches of training crops."""
    options = {name: config[name] for name in ("use_sbd", "sbd_root", "context_background") if name in config}
    dataset = build_dataset(config["dataset"], "train", root=root or config.get("data_root"), **options)
    loader = train_loader(
        dataset, crop_size=tuple(config["crop_size"]), base_size=config.get("base_size"), mean=model.mean,
        batch_size=config["batch_size"], accumulate=1, seed=config.get("seed", 1), rank=0, world_size=1, workers=0,
        pin_memory=False, skip_broken=config.get("skip_broken", False),
    )  # fmt: skip
    normalize = Normalize(model.mean, model.std)
    batches = islice(images(loader), num_batches)
    with progress("batch norm", 0, num_batches, iterable=batches, unit="batch") as bar:
        update_bn((normalize(image) for image in bar), model)
    model.eval()


def images(loader: DataLoader) -> Iterator[Tensor]:
    """The images of one epoch after another, uint8 [B, 3, H, W]."""
    epoch = 0
    while True:
        loader.batch_sampler.set_position(epoch, 0)
        yield from (batch["image"] for batch in loader)
        epoch += 1


if __name__ == "__main__":
    sys.exit(main())
