"""TensorBoard events, encoded by tensorboardX and written by the run's `RetryingWriter`.

Not tensorboardX's own writer: its thread ends on a full disk, and the run then blocks at the full queue before it.
A resumed run truncates the files instead of setting `purge_step`, which hides everything from a step on, for all tags
alike: the scalars of an epoch that was not counted share their step with training scalars that stay. Besides, programs
that read the files without TensorBoard would find both.
"""

import itertools
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from utils.palettes import Palette
from utils.run.files import write_atomically
from utils.run.writer import RetryingWriter
from utils.scoring.sheet import example_row
from utils.scoring.visualize import Example

EPOCH_TAGS = ("val/", "train/epoch_loss")  # written when an epoch is counted, after the scalars of its last step


class TensorBoardLogger:
    """Scalars and images of a run by optimizer step. Each start of the run writes a file of its own."""

    def __init__(self, folder: Path, writer: RetryingWriter):
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        self.path = next(path for path in map(folder.joinpath, names) if not path.exists())
        self.writer = writer
        self.writer.append(self.path, frame(Event(wall_time=time.time(), file_version="brain.Event:2")))

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        """Write {tag: value}, without those that are None."""
        for tag, value in values.items():
            if value is not None:
                self.add(summary.scalar(tag, value), step)

    def hyperparameters(self, config: Mapping, metrics: Sequence[str]) -> None:
        """Write the plain values of `config`, as text where they are lists, for TensorBoard's table of runs.

        `metrics`: the tags that it shows beside them. At step 0, so that no truncation drops them.
        """
        plain = {name: value for name, value in config.items() if not isinstance(value, dict) and value is not None}
        plain |= {name: value if isinstance(value, int | float | str) else str(value) for name, value in plain.items()}
        for content in summary.hparams(plain, dict.fromkeys(metrics, 0.0)):
            self.add(content, 0)

    def examples(self, examples: Sequence[Example], palette: Palette, step: int) -> None:
        """Write image, label, prediction and errors of each example side by side, in the colors of `palette`."""
        for index, example in enumerate(examples):
            row = example_row(example, palette, width=320)
            self.add(summary.image(f"val/{index} image, label, prediction, errors", row, dataformats="HWC"), step)

    def add(self, content: summary.Summary, step: int) -> None:
        self.writer.append(self.path, frame(Event(wall_time=time.time(), step=step, summary=content)))


def frame(event: Event) -> bytes:
    """The TFRecord of an event: length, CRC of the length, content, CRC of the content."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))


def truncate_events(folder: Path, step: int, last_logged_step: int) -> None:
    """Drop all events after `step`, those of epochs after `last_logged_step`, and partial records. Raises OSError."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        kept = [record for record in read_records(content) if is_kept(record, step, last_logged_step)]
        if not any(Event.FromString(record[12:-4]).summary.value for record in kept):
            path.unlink()
        elif (data := b"".join(kept)) != content:
            write_atomically(path, data)


def is_kept(record: bytes, step: int, last_logged_step: int) -> bool:
    try:
        event = Event.FromString(record[12:-4])
    except DecodeError:  # a machine that failed while it was written
        return False
    is_of_epoch = any(value.tag.startswith(EPOCH_TAGS) for value in event.summary.value)
    return event.step <= (last_logged_step if is_of_epoch else step)


def read_records(data: bytes) -> list[bytes]:
    """The complete TFRecords in `data`, each with its frame: the content of one is `record[12:-4]`."""
    records, start = [], 0
    while start + 12 <= len(data):
        end = start + 12 + struct.unpack_from("<Q", data, start)[0] + 4
        if end > len(data):
            break
        records.append(data[start:end])
        start = end
    return records
