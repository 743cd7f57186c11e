"""Train with the base flags and with each variation of them, for several seeds, and compare the val mIoU.

    python -m benchmarks.ablation --dataset folder --data-root DIR --base "--backbone mobilenet --epochs 6" \\
        --vary "--loss-type ce:1+dice:1" --vary "--ema-half-life 100" --seeds 1 2 3 --out DIR

One run of train.py after another, seed by seed. After each it prints the table, and writes it to DIR/ablation.md and
DIR/ablation.json. The same command goes on after a stop: finished runs are read from ablation.json, the one that was
stopped is resumed. More variations and seeds may be added to the command. The mIoU is that of the last epoch.
"""

import hashlib
import json
import shlex
import statistics
import subprocess
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.errors import RunFailed, UserError
from utils.flags import Parser, non_negative_int, run_command

ROOT = Path(__file__).parents[1]
OURS = {
    "--seed",
    "--checkname",
    "--run-dir",
    "--resume",
    "--dataset",
    "--data-root",
    "--no-val",
}  # not in --base, --vary


class Ablation:
    """Runs in `folder`: `base` alone and with each of `variations`. `data`: the flags that name the dataset."""

    def __init__(self, folder: Path, data: Sequence[str], base: str, variations: Sequence[str]):
        self.folder, self.data, self.base = folder, list(data), base
        self.variations = list(dict.fromkeys(["", *variations]))
        self.file = folder / "ablation.json"
        self.results = json.loads(self.file.read_text()) if self.file.is_file() else {}  # {name of a run: its result}

    def flags(self, variation: str) -> list[str]:
        return [*self.data, *shlex.split(self.base), *shlex.split(variation)]

    def name(self, variation: str, seed: int) -> str:
        """The checkname of a run: another one for other flags."""
        return f"{hashlib.sha256(shlex.join(self.flags(variation)).encode()).hexdigest()[:10]}-seed{seed}"

    def train(self, variation: str, seed: int) -> None:
        """Start a run, or continue it. Raises RunFailed if it does not end with a score."""
        name = self.name(variation, seed)
        if name in self.results:
            return
        command = [sys.executable, "train.py", *self.flags(variation), "--seed", str(seed), "--checkname", name]
        command += ["--run-dir", str(self.folder), "--resume", "auto"]
        print(f"\n{shlex.join(command[1:])}", flush=True)
        if status := subprocess.run(command, cwd=ROOT).returncode:
            raise RunFailed(f"train.py ended with status {status}: correct the flags, or repeat the command to go on")
        log = max(self.folder.glob(f"*/{name}/experiment_*/log.jsonl"), key=lambda path: path.stat().st_mtime)
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        scores = [row["val_miou"] for row in rows if row["val_miou"] is not None]
        self.results[name] = {
            "flags": variation, "seed": seed, "miou": scores[-1], "best": max(scores),
            "seconds": sum(row["seconds"] for row in rows), "run": str(log.parent),
        }  # fmt: skip

    def of(self, variation: str, seeds: Iterable[int]) -> list[dict]:
        """The results so far."""
        names = [self.name(variation, seed) for seed in seeds]
        return [self.results[name] for name in names if name in self.results]

    def table(self, seeds: Sequence[int]) -> str:
        """Markdown. A difference to the base is the mean over the seeds that both have."""
        lines = [f"Base: `{shlex.join(self.flags(''))}`", ""]
        lines += ["| flags | val mIoU | spread | difference | seeds | time of training |", "|---|---|---|---|---|---|"]
        base = {result["seed"]: result for result in self.of("", seeds)}
        for variation in self.variations:
            if results := self.of(variation, seeds):
                lines.append(f"| {row(variation, results, base)} |")
        return "\n".join([*lines, "", "Spread: the standard deviation over the seeds."])

    def write(self, seeds: Sequence[int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.results, indent=2) + "\n")
        (self.folder / "ablation.md").write_text(self.table(seeds) + "\n")


def row(variation: str, results: Sequence[dict], base: dict[int, dict]) -> str:
    """The cells of a variation; mIoU in percent."""
    scores = [100 * result["miou"] for result in results]
    spread = f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else "-"
    differences = [100 * (each["miou"] - base[each["seed"]]["miou"]) for each in results if each["seed"] in base]
    difference = f"{statistics.mean(differences):+.2f}" if variation and differences else "-"
    seconds = statistics.mean(result["seconds"] for result in results)
    name = f"`{variation}`" if variation else "base"
    cells = [name, f"{statistics.mean(scores):.2f}", spread, difference, str(len(scores)), f"{seconds:.0f} s"]
    return " | ".join(cells)


def ablation_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", required=True, help="as for train.py")
    add("--data-root", metavar="DIR", help="as for train.py")
    add("--base", default="", metavar="FLAGS", help="flags of train.py for all runs, in one word")
    add("--vary", action="append", default=[], metavar="FLAGS", help="flags added to the base; repeat it")
    add("--seeds", type=non_negative_int, nargs="+", default=[1, 2, 3], metavar="N", help="(default: 1 2 3)")
    add("--out", type=Path, default=Path("run/ablation"), metavar="DIR", help="of the runs and the table "
        "(default: run/ablation)")  # fmt: skip
    return parser


def compare(ablation: Ablation, seeds: Sequence[int]) -> int:
    for variation in [ablation.base, *ablation.variations]:
        if words := OURS & {word.partition("=")[0] for word in shlex.split(variation)}:
            raise UserError(
                f"{words.pop()} in --base or --vary: benchmarks.ablation gives it to each run; leave it out"
            )
    for seed in seeds:
        for variation in ablation.variations:
            ablation.train(variation, seed)
            ablation.write(seeds)
            print(f"\n{ablation.table(seeds)}", flush=True)
    return 0


def joined(words: Sequence[str]) -> list[str]:
    """`--vary --nesterov` as `--vary=--nesterov`: argparse would take its one-word value for a flag."""
    words, result = iter(words), []
    for word in words:
        value = next(words, None) if word in ("--base", "--vary") else None
        result.append(word if value is None else f"{word}={value}")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    args = ablation_parser().parse_args(joined(sys.argv[1:] if argv is None else argv))
    data = ["--dataset", args.dataset, *(["--data-root", args.data_root] if args.data_root else [])]
    return run_command(lambda: compare(Ablation(args.out.absolute(), data, args.base, args.vary), args.seeds))


if __name__ == "__main__":
    sys.exit(main())
