"""The labels of a COCO annotation file, drawn once into a file of the cache folder that all processes map.

The file: the runs of all labels (`coco_labels.py`), the arrays of `Index`, a JSON object that says where they lie, and
its length. It belongs to the path, size and time of the annotation file.
"""

import contextlib
import functools
import hashlib
import json
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from dataloaders.checks.annotations import read_annotations
from dataloaders.checks.layout import Report
from dataloaders.coco_labels import decode_runs, draw_runs
from dataloaders.strings import Strings
from utils.cache import FIX, cache_folder, locked
from utils.errors import RunFailed, writing
from utils.progress import progress
from utils.run.files import clear_parts, open_atomically
from utils.run.worker_signals import ignore_signals_in_worker

VERSION = 1  # of the file and of the rules by which labels are drawn
# COCO category of VOC's classes 1..20, in their order
CATEGORIES = (5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
CLASS_OF = {category: number for number, category in enumerate(CATEGORIES, start=1)}
MAX_PROCESSES = 16  # more would wait for the one that reads the file
CHUNK = 100  # images that a process draws at a time
MIN_BYTES_FOR_PROCESSES = 10_000_000  # a smaller file is drawn in less time than processes take to start
BLOCK = 1 << 16  # bytes: what Linux maps around a page that is read
END = np.dtype([("length", "<u8"), ("magic", "S8")])
MAGIC = b"COCOruns"
ARRAYS = ("image_ids", "sizes", "pixels", "starts", "names", "name_starts")


class Drawn(NamedTuple):
    """What a process returns for a chunk of images: the runs of all, and for each their number and its class pixels."""

    runs: bytes
    num_runs: list[int]
    pixels: list[int]


class Index:
    """The images of an annotation file, by their row in the order of COCO's ids. Arrays lie in the mapped file.

    `image_ids` int64 [N]; `sizes` int64 [N, 2], height and width; `pixels` int64 [N], of VOC's 20 classes; `names` of
    the image files; `digest` of the annotation file's content; `problems`, one for each invalid object;
    `num_short`: polygons left out.
    """

    def __init__(self, path: Path):
        """Raises OSError or ValueError if there is no complete file."""
        self.path = path
        with open(path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        end = np.frombuffer(self.map, END, 1, len(self.map) - END.itemsize)[0]
        if end["magic"] != MAGIC:
            raise ValueError(f"{path} is not complete")
        last = len(self.map) - END.itemsize
        content = json.loads(self.map[last - int(end["length"]) : last])
        self.digest, self.num_short, self.problems = (content[key] for key in ("digest", "num_short", "problems"))
        self.image_ids, sizes, self.pixels, self.starts, *names = (
            np.frombuffer(self.map, *content["arrays"][name]) for name in ARRAYS
        )
        self.sizes, self.names = sizes.reshape(-1, 2), Strings.from_arrays(*names)

    def __reduce__(self) -> tuple:
        return Index, (self.path,)

    def label(self, row: int) -> np.ndarray:
        """uint8 [H, W]."""
        first, last = (2 * int(place) for place in self.starts[row : row + 2])
        label = decode_runs(np.frombuffer(self.map[first:last], np.uint16), *self.sizes[row])
        if hasattr(mmap, "MADV_DONTNEED"):  # else a process that reads all labels counts the whole file as its memory
            first -= first % BLOCK
            self.map.madvise(mmap.MADV_DONTNEED, first, min(last + BLOCK - last % BLOCK, len(self.map)) - first)
        return label


def open_index(annotation_file: Path, report: Report) -> Index:
    """The index of an annotation file. The first process makes it, on several cores; others wait without a limit.

    Invalid objects go to `report`; if it returns, they are left out. Raises UserError if the file as a whole is not
    COCO's, or if the cache folder cannot be written.
    """
    path = cache_folder() / f"coco-{identity(annotation_file)}.labels"
    index = read_index(path)
    if index is None:
        waiting = f"waiting for another process that draws the labels of {annotation_file}"
        with locked(path, fix=FIX, waiting=waiting):
            index = read_index(path)
            if index is None:
                with writing(path, FIX):
                    write_index(path, annotation_file, report)
                return Index(path)
    report([f"{annotation_file}{problem}" for problem in index.problems])
    return index


def identity(annotation_file: Path) -> str:
    """Changes with the path, size or time of the file, and with the rules for labels."""
    status = annotation_file.stat()
    key = f"{annotation_file.resolve()} {status.st_size} {status.st_mtime_ns} {VERSION} {CATEGORIES}"
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]


def read_index(path: Path) -> Index | None:
    """None if there is no complete file."""
    try:
        return Index(path)
    except (OSError, ValueError):
        return None


def write_index(path: Path, annotation_file: Path, report: Report) -> None:
    """Draw all labels, after `report` got all invalid objects.

    Raises OSError if `path` cannot be written, UserError for an annotation file that is not COCO's.
    """
    clear_parts(path.parent, path.name)
    with ordered_map(num_processes(annotation_file)) as run, open_atomically(path) as file:
        print(f"{annotation_file}: drawing all labels, once", flush=True)
        digest, problems = digest_of(annotation_file), []

        def keep(found: Sequence[str]) -> None:
            report(found)
            problems.extend(problem.removeprefix(str(annotation_file)) for problem in found)

        annotations = read_annotations(annotation_file, CLASS_OF, keep)
        images = [annotations.images[image_id] for image_id in sorted(annotations.images)]
        num_runs, pixels = [], []
        with progress("drawing COCO labels (once)", 0, len(images), unit="image", everywhere=True) as bar:
            for drawn in run(draw_chunk, chunks(images, annotations.objects)):
                file.write(drawn.runs)
                num_runs += drawn.num_runs
                pixels += drawn.pixels
                bar.update(len(drawn.pixels))
        names = Strings(image["file_name"] for image in images)
        arrays = {
            "image_ids": np.array([image["id"] for image in images], np.int64),
            "sizes": np.array([(image["height"], image["width"]) for image in images], np.int64).ravel(),
            "pixels": np.array(pixels, np.int64),
            "starts": np.cumsum([0, *num_runs]),
            "names": names.data,
            "name_starts": names.starts,
        }
        write_end(file, arrays, {"digest": digest, "num_short": annotations.num_short, "problems": problems})


def num_processes(annotation_file: Path) -> int:
    """The cores of this process, at most MAX_PROCESSES; 1 for a small file."""
    if annotation_file.stat().st_size < MIN_BYTES_FOR_PROCESSES:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_PROCESSES)


@contextlib.contextmanager
def ordered_map(num_processes: int) -> Iterator[Callable]:
    """`map`, in so many processes, which start here: forked later, they would have the parsed file in memory.

    They end with this process, whichever way it ends. Raises RunFailed if one of them is killed.
    """
    if num_processes == 1:
        yield map
        return
    try:
        with ProcessPoolExecutor(num_processes, initializer=ignore_signals_in_worker) as pool:
            pool.submit(os.getpid).result()
            yield functools.partial(map_in_order, pool, 3 * num_processes)
    except BrokenProcessPool as error:
        raise RunFailed("a process that draws COCO's labels was killed: is there enough memory?") from error


def map_in_order(pool: ProcessPoolExecutor, max_waiting: int, function: Callable, values: Iterable) -> Iterator:
    """At most `max_waiting` values are in the pool, so that neither they nor the results fill the memory."""
    waiting: deque = deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) == max_waiting:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def chunks(images: Sequence[dict], objects: Mapping[int, list[tuple]]) -> Iterator[list[tuple]]:
    """Lists of (objects, height, width), one for each image."""
    for first in range(0, len(images), CHUNK):
        yield [
            (objects.get(image["id"], ()), image["height"], image["width"]) for image in images[first : first + CHUNK]
        ]


def draw_chunk(chunk: Sequence[tuple]) -> Drawn:
    runs, pixels = zip(*(draw_runs(*image) for image in chunk), strict=True)
    return Drawn(np.concatenate(runs).tobytes(), [len(one) for one in runs], list(pixels))


def digest_of(path: Path) -> str:
    """SHA-256 of the content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_end(file: BinaryIO, arrays: Mapping[str, np.ndarray], content: dict) -> None:
    """Write what follows the runs."""
    places = {}
    for name, values in arrays.items():
        file.write(bytes(-file.tell() % 8))
        places[name] = (values.dtype.str, len(values), file.tell())
        file.write(values.tobytes())
    text = json.dumps(content | {"arrays": places}).encode()
    file.write(text)
    file.write(np.array((len(text), MAGIC), END).tobytes())
