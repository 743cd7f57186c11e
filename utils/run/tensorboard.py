"""TensorBoard events, framed by tensorboardX and written by the run's own patient writer.

tensorboardX's writer is a thread behind a short queue: on a full disk it dies, and the run waits for it for ever.
"""

import itertools
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from utils.run.files import write_atomically
from utils.run.writer import RetryingWriter
from utils.scoring.visualize import Example, Palette, example_row

EPOCH_TAGS = ("val/", "train/epoch_loss")  # written when an epoch is counted, after its last step's scalars


class TensorBoardLogger:
    """Scalars and images of one run, a step counted in optimizer steps. Each start has its own file."""

    def __init__(self, folder: Path, writer: RetryingWriter):
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        names = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        self.path = next(path for path in map(folder.joinpath, names) if not path.exists())
        self.writer = writer
        self.writer.append(self.path, frame(Event(wall_time=time.time(), file_version="brain.Event:2")))

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self.add(summary.scalar(name, value), step)

    def examples(self, examples: Sequence[Example], palette: Palette, step: int) -> None:
        """input | truth | prediction of each example, in the dataset's colors."""
        for number, example in enumerate(examples):
            row = example_row(example, palette, width=320)
            self.add(summary.image(f"val/{number} input, truth, prediction", row, dataformats="HWC"), step)

    def add(self, content: summary.Summary, step: int) -> None:
        self.writer.append(self.path, frame(Event(wall_time=time.time(), step=step, summary=content)))


def frame(event: Event) -> bytes:
    """The record of an event file: length, its CRC, content, its CRC."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), content, struct.pack("<I", masked_crc32c(content)))
    )


def truncate_events(folder: Path, step: int, counted_step: int | None = None) -> None:
    """Drop all events after `step`, those of counted epochs after `counted_step`, and a record half written."""
    counted_step = step if counted_step is None else counted_step
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        kept = [record for record in read_records(content) if is_kept(record, step, counted_step)]
        if not any(Event.FromString(record[12:-4]).summary.value for record in kept):
            path.unlink()
        elif (data := b"".join(kept)) != content:
            write_atomically(path, data)


def is_kept(record: bytes, step: int, counted_step: int) -> bool:
    try:
        event = Event.FromString(record[12:-4])
    except DecodeError:  # a machine went down while it was written
        return False
    is_of_epoch = any(value.tag.startswith(EPOCH_TAGS) for value in event.summary.value)
    return event.step <= (counted_step if is_of_epoch else step)


def read_records(data: bytes) -> list[bytes]:
    """The whole records of a TFRecord file, with their frames: length, its CRC, content, its CRC."""
    records, start = [], 0
    while start + 12 <= len(data):
        end = start + 12 + struct.unpack_from("<Q", data, start)[0] + 4
        if end > len(data):
            break
        records.append(data[start:end])
        start = end
    return records
