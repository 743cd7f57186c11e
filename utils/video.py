"""Video files and webcams: frames in, H.264 out. PyAV reads and writes files, OpenCV reads webcams; both optional."""

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from utils.errors import UserError, writing

CONTAINERS = (".mp4", ".mkv", ".mov")
QUALITY = {"crf": "18", "preset": "veryfast"}  # x264's: hardly visible loss, at a fraction of the network's time
WEBCAM_RATE, WEBCAM_CLOCK = Fraction(30), Fraction(1, 1000)
BT709 = 1  # FFmpeg's number of the color space of HD video
# Degrees counterclockwise that turn a frame upright
TURNS = {
    90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}  # fmt: skip


class Frame(NamedTuple):
    """`image`: RGB, upright. `time`: seconds since the first frame."""

    image: Image.Image
    time: Fraction


class VideoFile:
    """The frames of the first video stream of a file. `num_frames` is None if the file does not say it; `rate` in
    frames a second; `clock` in seconds.

    Raises UserError for a file that is missing or no video, and without PyAV.
    """

    def __init__(self, path: Path):
        self.path, self.av = path, import_av()
        try:
            self.container = self.av.open(str(path))
        except FileNotFoundError:
            raise UserError(f"{path} is missing: put it there, or give another `video`") from None
        except self.av.error.FFmpegError as error:
            raise unreadable(path, error) from error
        if not self.container.streams.video:
            raise UserError(f"{path} has no video stream: give another `video`")
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.num_frames = self.stream.frames or None
        self.rate = self.stream.average_rate or self.stream.guessed_rate or WEBCAM_RATE
        self.clock = self.stream.time_base
        self.aspect = self.stream.sample_aspect_ratio  # of a pixel as stored

    def __iter__(self) -> Iterator[Frame]:
        """Raises UserError where the file is damaged."""
        first, last = None, Fraction(-1)
        try:
            for number, frame in enumerate(self.container.decode(self.stream)):
                seconds = number / self.rate if frame.pts is None else frame.pts * frame.time_base
                first = seconds if first is None else first
                if seconds - first > last:  # a container can't hold two frames of one time
                    last = seconds - first
                    yield Frame(upright(frame.to_image(), frame.rotation), last)
        except self.av.error.FFmpegError as error:
            raise unreadable(self.path, error) from error

    def close(self) -> None:
        self.container.close()


class Webcam:
    """The frames of a webcam, with the time when each was taken, until it is unplugged.

    Raises UserError for a webcam that cannot be opened, and without OpenCV.
    """

    num_frames, rate, clock, aspect = None, WEBCAM_RATE, WEBCAM_CLOCK, None

    def __init__(self, index: int):
        try:
            import cv2
        except ImportError:
            raise UserError("a webcam needs OpenCV: pip install opencv-python, or give a file to `video`") from None
        self.capture = cv2.VideoCapture(index)
        if not self.capture.isOpened():
            raise UserError(f"webcam {index} cannot be opened: connect it, close other programs that use it")

    def __iter__(self) -> Iterator[Frame]:
        start = None
        while True:
            has_frame, pixels = self.capture.read()  # BGR
            if not has_frame:
                return
            now = time.monotonic()
            start = now if start is None else start
            yield Frame(Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])), Fraction(now - start))

    def close(self) -> None:
        self.capture.release()


def open_video(source: str) -> VideoFile | Webcam:
    """A file, or the webcam of that number."""
    path = Path(source).expanduser()
    return Webcam(int(source)) if source.isdecimal() and not path.exists() else VideoFile(path)


def unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read as a video ({error.strerror}): repair it, or give another `video`")


def upright(image: Image.Image, rotation: int) -> Image.Image:
    """`rotation`: degrees counterclockwise, as a phone stores them."""
    return image.transpose(TURNS[rotation]) if rotation in TURNS else image


class VideoWriter:
    """Writes frames as H.264 to `path`; `close` makes the file readable, after any number of frames.

    The first frame creates the file and sets its size. `clock`: the unit of time of the file, in seconds. `aspect`: of
    a pixel.
    Raises UserError for a path that cannot be written, and without PyAV.
    """

    def __init__(self, path: Path, *, rate: Fraction, clock: Fraction, aspect: Fraction | None = None):
        self.path, self.rate, self.clock, self.aspect = path, rate, clock, aspect
        self.av, self.stream, self.num_frames, self.last_tick = import_av(), None, 0, -1
        if path.suffix.lower() not in CONTAINERS:
            raise UserError(f"`out` {path}: give a file that ends with {', '.join(CONTAINERS)}")

    def write(self, image: Image.Image, seconds: Fraction) -> None:
        if self.stream is None:
            self.open(*image.size)
        # Two frames of a webcam may have one tick of the clock
        self.last_tick = max(round(seconds / self.clock), self.last_tick + 1)
        frame = self.av.VideoFrame.from_image(image).reformat(
            width=self.stream.width, height=self.stream.height, format=self.stream.pix_fmt, dst_colorspace="ITU709"
        )
        frame.pts, frame.time_base = self.last_tick, self.clock
        with writing(self.path, "make room there, or give another `out`"):
            self.container.mux(self.stream.encode(frame))
        self.num_frames += 1

    def open(self, width: int, height: int) -> None:
        with writing(self.path, "give another `out`"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.container = self.av.open(str(self.path), "w")
        self.stream = stream = self.container.add_stream("libx264", rate=self.rate, options=QUALITY)
        stream.width, stream.height = width, height
        # Half the resolution of colors needs even sides
        stream.pix_fmt = "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
        context = stream.codec_context
        context.time_base = self.clock
        context.colorspace = context.color_primaries = context.color_trc = BT709
        if self.aspect:
            context.sample_aspect_ratio = self.aspect

    def close(self) -> None:
        if self.stream is not None:
            with writing(self.path, "make room there, or give another `out`"):
                self.container.mux(self.stream.encode())
                self.container.close()


def import_av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV: pip install av") from None
    return av
