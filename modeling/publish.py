"""Write the weights of a checkpoint into a folder that others can use: safetensors, description, model card.

python -m modeling.publish --checkpoint run/pascal/deeplab-resnet/experiment_0/model_best.pth.tar --out resnet_voc
python -m modeling.publish --checkpoint model_best.pth.tar --out resnet_voc --push owner/resnet_voc
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from modeling.backbone import BACKBONES
from utils.errors import UserError, writing
from utils.flags import Parser, answer_early, run_command
from utils.run.files import replace_folder


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m modeling.publish", description="Write weights, description and model card into a folder."
    )
    add = parser.add_argument
    add("--checkpoint", metavar="FILE", required=True, help="of a training run or of modeling.weights")
    add("--out", metavar="DIR", required=True, help="where to write; only a folder of this command is replaced")
    add("--scores", metavar="FILE", help="metrics.json of evaluate.py for the model card (default: the scores of the "
        "validation that chose model_best)")  # fmt: skip
    add("--license", metavar="ID", default="mit", help="of the weights, for the model card (default: mit)")
    add("--push", metavar="OWNER/NAME", help="also upload the folder to this repository of the Hugging Face Hub")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

from modeling.model_card import model_card
from modeling.pretrained.load import load_weights, read_source
from modeling.pretrained.loaded_model import classes_and_palette, find_architecture, warn_of_untrained
from utils.hf_hub import PREFIX, push, require_pushable
from utils.run.checkpoint import is_ours
from utils.run.weights_file import DESCRIPTION, FORMAT, KEYS, WEIGHTS, describe, read_json, to_safetensors

CARD = "README.md"
FILES = {WEIGHTS, DESCRIPTION, CARD}
FOLDERS = ("data_root", "sbd_root", "run_dir")  # of the machine: not published
PROTOCOL = ("protocol", "out_stride", "scales", "flip", "crop_size", "stride")


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    return run_command(lambda: publish(args))


def publish(args: argparse.Namespace) -> int:
    out = Path(args.out).expanduser().absolute()
    require_replaceable(out)
    if args.push:
        require_pushable(args.push)
    if not re.fullmatch(r"[\w.+-]+", args.license):
        raise UserError(f"`license` {args.license!r} is no identifier: give one such as mit or cc-by-4.0")
    content = publishable(args.checkpoint, args.scores)
    description = describe(content)
    card = model_card(
        description, address=f"{PREFIX}{args.push}" if args.push else f"path/to/{out.name}", license_id=args.license
    )
    files = {
        WEIGHTS: to_safetensors(content),
        DESCRIPTION: (json.dumps(description, indent=2) + "\n").encode(),
        CARD: card.encode(),
    }
    with writing(out, "give another `out`"):
        replace_folder(out, files)
    print(f"{out}: " + ", ".join(f"{name} ({len(data):,} bytes)" for name, data in files.items()))
    if args.push:
        push(out, args.push)
        print(f"{PREFIX}{args.push}")
    return 0


def require_replaceable(out: Path) -> None:
    """Raise UserError for anything but a new or empty folder, or one that holds what this command wrote."""
    if not out.is_dir():
        if out.exists() or out.is_symlink():
            raise UserError(f"`out` {out} is a file: give a folder")
        return
    names = {path.name for path in out.iterdir()}
    is_published = names == FILES and (read := read_json(out / DESCRIPTION)) and is_description(read)
    if names and not is_published:
        other = min(names - FILES, default=DESCRIPTION)
        raise UserError(f"`out` {out} holds files of others, such as {other}: give a new or empty folder")


def is_description(value: object) -> bool:
    return isinstance(value, dict) and value.get("format") == FORMAT


def publishable(source: str, scores: str | None) -> dict:
    """The content of the checkpoint `source` with complete weights, and without paths of this machine.

    `scores`: a metrics.json, or None for those in the checkpoint. Raises UserError if the checkpoint does not describe
    its network or does not fill it, or if the scores are those of other classes.
    """
    content = read_source(source)
    if not is_ours(content):
        raise UserError(f"{source} does not say which network it is of: convert it with modeling.weights first")
    architecture = find_architecture(content, content["config"], None, source)
    model = architecture.build()
    report = load_weights(model, source, content=content)
    report.require(f"{architecture.backbone} network", source, "give the checkpoint of a whole network")
    warn_of_untrained(content.get("untrained", ()), source)
    classes, palette = classes_and_palette(content, architecture.num_classes, None)
    found = content.get("scores") if scores is None else read_scores(Path(scores), classes)
    how = {"protocol": "whole", "out_stride": architecture.output_stride}
    return {key: content[key] for key in KEYS if key in content} | model.preprocessing | {
        "state_dict": model.state_dict(),
        "config": without_paths(content["config"]) | architecture.to_config(),
        "classes": list(classes),
        "palette": [list(color) for color in palette],
        "protocol": {key: found[key] for key in PROTOCOL if key in found} if found else how,
        "scores": without_paths(found or {}),
    }  # fmt: skip


def read_scores(path: Path, classes: Sequence[str]) -> dict:
    scores = read_json(path)
    rows = scores.get("per_class") if isinstance(scores, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) and "iou" in row for row in rows.values()):
        raise UserError(f"`scores` {path} is no metrics.json of evaluate.py: give one")
    if list(rows) != list(classes):
        raise UserError(f"`scores` {path} has the classes {', '.join(rows)}, the checkpoint {', '.join(classes)}")
    return scores


def without_paths(config: Mapping) -> dict:
    """`config` without the folders of this machine; of other paths the last name stays."""
    kept = {key: value for key, value in config.items() if key not in FOLDERS}
    kept |= {key: last_name(value) for key, value in kept.items() if isinstance(value, str)}
    if "commands" in kept:
        kept["commands"] = [shlex.join(map(last_name, shlex.split(line))) for line in kept["commands"]]
    return kept


def last_name(word: str) -> str:
    """`word`, or the last name of the path that it is or, as in --flag=PATH, holds; addresses and backbones stay."""
    flag, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return word if "://" in value or value in BACKBONES else flag + sign + re.split(r"[/\\]", value.rstrip("/"))[-1]


if __name__ == "__main__":
    sys.exit(main())
