"""predict.py --video: a file or a webcam in, an overlay video of the same size and times out."""

import os
import signal
import sys
import types
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from modeling.segmenter import Segmenter
from utils.errors import UserError
from utils.video import Frame, VideoFile, VideoWriter

av = pytest.importorskip("av")
GREEN, RED = (20, 200, 40), (200, 60, 30)


@pytest.fixture(autouse=True)
def quiet():
    av.logging.set_level(av.logging.ERROR)


def write_video(path: Path, *, size=(64, 48), ticks=range(6), rate=Fraction(30000, 1001), rotation=0) -> Path:
    """Red with a green upper left quarter; a frame at each of `ticks`, in units of 1 / rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
        if rotation:
            stream.set_display_rotation(rotation)
        image = Image.new("RGB", size, RED)
        image.paste(GREEN, (0, 0, size[0] // 2, size[1] // 2))
        for tick in ticks:
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = tick, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_video(path: Path) -> tuple[VideoFile, list[Frame]]:
    video = VideoFile(path)
    frames = list(video)
    video.close()
    return video, frames


def command(network, video, out, *arguments) -> list[str]:
    return ["--checkpoint", str(network), "--video", str(video), "--out", str(out), *map(str, arguments)]


@pytest.mark.parametrize(("size", "ending"), [((64, 48), "mp4"), ((63, 47), "mkv")])
def test_the_overlay_video_has_the_size_rate_and_colors_of_the_video(folder_network, tmp_path, capsys, size, ending):
    source, out = write_video(tmp_path / "clip.mp4", size=size), tmp_path / f"new/out.{ending}"
    assert predict.main(command(folder_network, source, out, "--batch-size", 2)) == 0
    assert f"6 frames labeled in {out}" in capsys.readouterr().out
    (before, frames), (after, overlays) = read_video(source), read_video(out)
    assert before.rate == after.rate and len(frames) == len(overlays) == 6
    segmenter = Segmenter(folder_network, "cpu")
    for frame, overlay in zip(frames, overlays, strict=True):
        assert overlay.image.size == frame.image.size == size
        assert abs(overlay.time - frame.time) <= Fraction(1, 1000)
        wanted = np.asarray(segmenter(frame.image).overlay(), int)
        assert np.abs(np.asarray(overlay.image, int) - wanted).mean() < 8  # colors have half the resolution


def test_frames_keep_their_times_and_colors(tmp_path):
    source = write_video(tmp_path / "clip.mp4", ticks=(0, 1, 2, 7, 8))
    before, frames = read_video(source)
    assert [frame.time * before.rate for frame in frames] == [0, 1, 2, 7, 8]
    writer = VideoWriter(tmp_path / "copy.mp4", rate=before.rate, clock=before.clock)
    for frame in frames:
        writer.write(frame.image, frame.time)
    writer.close()
    _, copies = read_video(tmp_path / "copy.mp4")
    assert [frame.time for frame in copies] == [frame.time for frame in frames]
    for place, color in (((5, 5), GREEN), ((50, 40), RED)):
        assert np.allclose(copies[-1].image.getpixel(place), color, atol=6)


def test_times_between_those_of_the_rate_are_kept(tmp_path):
    """As of a webcam; two frames of one tick are put one tick apart."""
    writer = VideoWriter(tmp_path / "copy.mp4", rate=Fraction(30), clock=Fraction(1, 1000))
    for milliseconds in (0, 10, 10, 251, 333):
        writer.write(Image.new("RGB", (64, 48), RED), Fraction(milliseconds, 1000))
    writer.close()
    assert [frame.time * 1000 for frame in read_video(tmp_path / "copy.mp4")[1]] == [0, 10, 11, 251, 333]


@pytest.mark.parametrize(("rotation", "corner"), [(90, "lower left"), (180, "lower right"), (-90, "upper right")])
def test_a_video_of_a_phone_is_turned_upright(tmp_path, rotation, corner):
    """A display rotation of 90 turns counterclockwise: the upper left corner becomes the lower left one."""
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    _, frames = read_video(write_video(tmp_path / "clip.mp4", rotation=rotation))
    image = frames[0].image
    assert image.size == ((64, 48) if rotation == 180 else (48, 64))
    place = (4 if "left" in corner else image.width - 4, 4 if "upper" in corner else image.height - 4)
    assert np.allclose(image.getpixel(place), GREEN, atol=6)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_video_is_readable(folder_network, tmp_path, monkeypatch, capsys, number, status):
    source, out, frames = write_video(tmp_path / "clip.mp4"), tmp_path / "out.mp4", count(1)
    write = VideoWriter.write

    def write_and_stop(writer, image, seconds):
        write(writer, image, seconds)
        if next(frames) == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(VideoWriter, "write", write_and_stop)
    try:
        assert predict.main(command(folder_network, source, out)) == status
    except SystemExit as stop:
        assert stop.code == status
    assert "4 frames labeled" in capsys.readouterr().out
    assert len(read_video(out)[1]) == 4


def test_a_damaged_video_gives_the_frames_before_the_damage(folder_network, tmp_path, capsys, monkeypatch):
    source, out = write_video(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    frames = iter(list(VideoFile(source)))

    def damaged(video):
        yield from (next(frames), next(frames))
        raise UserError(f"{video.path} cannot be read as a video (reason): repair it")

    monkeypatch.setattr(VideoFile, "__iter__", damaged)
    assert predict.main(command(folder_network, source, out)) == 2
    assert "clip.mp4 cannot be read as a video (reason)" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.undo()
    assert len(read_video(out)[1]) == 2


class FakeCapture:
    """cv2.VideoCapture with three blue frames, for webcam 3."""

    def __init__(self, index: int):
        self.is_open, self.left = index == 3, 3

    def isOpened(self):
        return self.is_open

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((48, 64, 3), (220, 20, 20), np.uint8)  # BGR

    def release(self):
        self.is_open = False


def test_a_webcam_is_read_through_opencv(folder_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(VideoCapture=FakeCapture))
    monkeypatch.setattr(Segmenter, "label_all", plain_results)
    assert predict.main(command(folder_network, 3, tmp_path / "out.mp4")) == 0
    assert "3 frames labeled" in capsys.readouterr().out
    _, frames = read_video(tmp_path / "out.mp4")
    assert len(frames) == 3 and np.allclose(frames[0].image.getpixel((5, 5)), (20, 20, 220), atol=6)
    assert predict.main(command(folder_network, 0, tmp_path / "out.mp4")) == 2
    wanted = "error: webcam 0 cannot be opened: connect it, close other programs that use it"
    assert capsys.readouterr().err.splitlines()[-1] == wanted


def plain_results(segmenter, images):
    """Everything is background, so that the overlay shows the image."""
    for image, _ in images:
        labels = np.zeros((image.height, image.width), np.uint8)
        yield predict.Segmentation(image, labels, None, ("background",), segmenter.palette)


@pytest.mark.parametrize(
    ("video", "out", "arguments", "line"),
    [
        ("nowhere.mp4", "out.mp4", [], "nowhere.mp4 is missing: put it there, or give another --video"),
        ("text.mp4", "out.mp4", [], "text.mp4 cannot be read as a video (Invalid data found when processing input)"),
        ("clip.mp4", "out", [], "out: give a file that ends with .mp4, .mkv, .mov"),
        ("clip.mp4", "clip.mp4", [], "is the video to label and would be overwritten: give another --out"),
        ("clip.mp4", "out.mp4", ["--scores"], "--scores and --recursive do not belong to --video"),
        ("clip.mp4", "clip.mp4/out.mp4", [], "give another --out"),
    ],
)
def test_mistakes_are_one_line(folder_network, tmp_path, capsys, video, out, arguments, line):
    write_video(tmp_path / "clip.mp4", ticks=range(2))
    (tmp_path / "text.mp4").write_text("no video" * 99)
    assert predict.main(command(folder_network, tmp_path / video, tmp_path / out, *arguments)) == 2
    assert line in capsys.readouterr().err.splitlines()[-1] and not (tmp_path / "out.mp4").exists()


def test_without_the_libraries_a_line_says_what_to_install(folder_network, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "cv2", None)
    for video, wanted in ((tmp_path / "clip.mp4", "pip install av"), (0, "pip install opencv-python")):
        assert predict.main(command(folder_network, video, tmp_path / "out.mp4")) == 2
        assert wanted in capsys.readouterr().err.splitlines()[-1]


def test_a_video_among_the_images_is_named_with_its_flag(folder_network, tmp_path, capsys):
    source = write_video(tmp_path / "clip.mp4")
    assert predict.main(["--checkpoint", str(folder_network), "--out", str(tmp_path / "out"), str(source)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {source} is a video: give it to --video"


def test_something_to_label_is_required(folder_network, tmp_path, capsys):
    assert predict.main(["--checkpoint", str(folder_network), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: nothing to label: give images, folders, or --video\n"
