"""TensorBoard events through tensorboardX."""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from utils.checkpoint import write_atomically
from utils.visualize import Example, Palette, example_row


class Board:
    """Scalars and pictures of one run, a step counted in optimizer steps."""

    def __init__(self, folder: Path):
        self.writer = SummaryWriter(str(folder))

    def scalars(self, values: dict[str, float | None], step: int) -> None:
        for name, value in values.items():
            if value is not None:
                self.writer.add_scalar(name, value, step)

    def examples(self, examples: Sequence[Example], palette: Palette, step: int) -> None:
        """input | truth | prediction of each example, in the data set's colours."""
        for number, example in enumerate(examples):
            row = example_row(example, palette, width=320)
            self.writer.add_image(f"val/{number} input, truth, prediction", row, step, dataformats="HWC")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def cut_back_events(folder: Path, step: int) -> None:
    """Drop all events after `step`, and a record that a killed process left half written."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        records = [record for record in read_records(path.read_bytes()) if event_step(record) <= step]
        write_atomically(path, b"".join(records))
        if not records:
            os.unlink(path)


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


def event_step(record: bytes) -> int:
    return Event.FromString(record[12:-4]).step
