"""How long a checkpoint holds up training: written at once, and as runs write it, by a thread.

    python -m benchmarks.save [--backbone resnet] [--size 129] [--batch-size 2] [--steps 10] [--rounds 4] [--dir .]

A window is a save, some training steps, and the wait until the files are complete. "next step waits": the time of the
call that saves. "window longer": what the window takes more than the same steps without a save, as steps are slower
while the thread takes a core that they use too. Medians over the rounds, in each of which all windows alternate. "at
once": the state as bytes, then the files, all in the training thread. Then the time to read the checkpoint, without and
with its SHA-256. The files go to a temporary folder in DIR.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from modeling import BACKBONES
from utils.constants import DEVICES
from utils.flags import answer_early, positive_int


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet")
    parser.add_argument("--size", type=positive_int, default=129, help="side of the training images (default: 129)")
    parser.add_argument("--batch-size", type=positive_int, default=2)
    parser.add_argument("--steps", type=positive_int, default=10, help="steps of a window (default: 10)")
    parser.add_argument("--rounds", type=positive_int, default=4, help="windows of each kind (default: 4)")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--dir", default=".", help="where the disk to measure is (default: here)")
    return parser


if __name__ == "__main__":
    answer_early(make_parser())  # above the imports below, which take seconds

import safetensors.torch
import torch

from benchmarks.cases import Case
from benchmarks.rates import MemoryLoader, make_trainer, random_batch
from engine import Trainer
from utils.distributed.device import resolve_amp, select_device
from utils.run.checkpoint import read_checkpoint, read_pickle
from utils.run.files import write_atomically


def save_at_once(trainer: Trainer, *, is_best: bool) -> None:
    """What runs did before a thread wrote their files; the best checkpoint holds the state a second time."""
    folder = trainer.recorder.folder
    if is_best:
        tensors = {name: value.cpu().contiguous() for name, value in trainer.model.state_dict().items()}
        write_atomically(folder.best_weights, safetensors.torch.save(tensors))
    for path in (folder.best, folder.checkpoint) if is_best else (folder.checkpoint,):
        buffer = io.BytesIO()
        torch.save(trainer.state_dict() | trainer.recorder.extra, buffer)
        write_atomically(path, buffer.getbuffer())


def save_by_thread(trainer: Trainer, *, is_best: bool) -> None:
    trainer.recorder.save(trainer.state_dict, is_best=is_best)


# (row, whether it is the best, how to save; None: not at all)
SAVES: dict[str, tuple[bool, Callable | None]] = {
    "none": (False, None),
    "latest, at once": (False, save_at_once),
    "latest, by a thread": (False, save_by_thread),
    "best and latest, at once": (True, save_at_once),
    "best and latest, by a thread": (True, save_by_thread),
}


def window(trainer: Trainer, batch: dict, steps: int, name: str) -> tuple[float, float]:
    """(seconds of a save, `steps` steps and the wait for the files; seconds of the save alone)."""
    is_best, save = SAVES[name]
    start = time.perf_counter()
    if save is not None:
        save(trainer, is_best=is_best)
    saved = time.perf_counter()
    for _ in range(steps):
        trainer.train_step([batch]).sums.read()
    trainer.recorder.wait()
    return time.perf_counter() - start, saved - start


def measure(trainer: Trainer, batch: dict, *, steps: int, rounds: int) -> dict[str, tuple[float, float]]:
    """{name of SAVES: median seconds that training is held up, and in the call alone}; the first round is a warm-up."""
    delays: dict[str, list[tuple[float, float]]] = {name: [] for name in SAVES}
    for _ in range(rounds + 1):
        quiet = window(trainer, batch, steps, "none")[0]
        for name in SAVES:
            whole, alone = window(trainer, batch, steps, name)
            delays[name].append((whole - quiet, alone))
    medians = {name: zip(*rows[1:], strict=True) for name, rows in delays.items()}
    return {name: tuple(map(statistics.median, columns)) for name, columns in medians.items()}


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def print_tables(results: dict, path: Path, *, rounds: int) -> None:
    print(f"{path.stat().st_size / 1e6:.0f} MB a checkpoint\n")
    print("| save | next step waits, ms | ratio | window longer, ms | ratio |\n|---|---|---|---|---|")
    for name, (delay, alone) in results.items():
        slowest = results[name.replace("by a thread", "at once")]
        ratios = [f"{alone / slowest[1]:.3f}", f"{delay / slowest[0]:.2f}"] if name != "none" else ["", ""]
        print(f"| {name} | {1000 * alone:.0f} | {ratios[0]} | {1000 * delay:.0f} | {ratios[1]} |")
    alone = median_seconds(lambda: read_pickle(path), rounds)
    checked = median_seconds(lambda: read_checkpoint(path), rounds)
    print("\n| reading | ms | ratio |\n|---|---|---|")
    print(f"| torch.load | {1000 * alone:.0f} | |\n| with SHA-256 | {1000 * checked:.0f} | {checked / alone:.2f} |")


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    device = select_device(args.device)
    batch = random_batch(args.batch_size, args.size, args.size, pin_memory=device.type == "cuda")
    case = Case(network=args.backbone, amp=resolve_amp("auto", device))
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        trainer = make_trainer(
            case, MemoryLoader([batch], args.steps), Path(folder), batch_size=args.batch_size, device=device
        )
        trainer.network.train()
        results = measure(trainer, batch, steps=args.steps, rounds=args.rounds)
        print_tables(results, trainer.recorder.folder.checkpoint, rounds=args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
