"""What every data set is: pictures with labels, read as they lie on disk, upright, and checked against each other."""

import functools
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from errors import UserError
from utils.losses import IGNORE_INDEX

ORIENTATION_TAG = 0x0112
# EXIF orientation -> how to turn the stored picture upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureSet(ABC):
    """Pictures and labels by index. A subclass fills the attributes and says where a picture and its label are."""

    name: str
    ids: list[str]
    classes: tuple[str, ...]
    palette: list[tuple[int, int, int]]
    has_labels = True  # without them (a test split) every label reads as 255 throughout
    has_void_border: bool | None = False  # whether 255 is drawn around objects; None: see the labels

    @functools.cached_property
    def checked(self) -> set[int]:
        """Labels whose values were found to be classes."""
        return set()

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def picture_path(self, index: int) -> Path: ...

    @abstractmethod
    def label_path(self, index: int) -> Path: ...

    def open_label(self, index: int) -> Image.Image:
        """The label as stored, one channel of class numbers."""
        return open_label(self.label_path(index))

    def label_digest(self, index: int) -> bytes:
        """Changes whenever the label's content does."""
        return hashlib.sha256(self.label_path(index).read_bytes()).digest()

    def read(self, index: int) -> tuple[Image.Image, Image.Image]:
        """(RGB picture, one-channel label), upright and of one size. Raises UserError naming the file at fault."""
        path = self.picture_path(index)
        picture, turn = open_picture(path)
        if not self.has_labels:
            return upright(picture, turn), Image.new("L", upright(picture, turn).size, IGNORE_INDEX)
        label = self.open_label(index)
        if index not in self.checked:  # once a process: it costs a tenth of the decoding
            check_label(label, len(self.classes), self.describe_label(index))
            self.checked.add(index)
        if turn is not None:
            label = label.transpose(turn) if label.size == picture.size else label
            picture = picture.transpose(turn)
        if label.size != picture.size:
            raise UserError(
                f"{self.describe_label(index)} is {label.width}x{label.height} but its picture {path} is "
                f"{picture.width}x{picture.height}: both must have one size"
            )
        return picture, label

    def labels_hold_void(self) -> bool:
        """Whether any label of the split has a pixel of 255."""
        return any(self.open_label(index).histogram()[IGNORE_INDEX] for index in range(len(self)))

    def submission(self, key: str, prediction: np.ndarray) -> tuple[Path, Image.Image]:
        """(file below the submission's folder, its content) as the benchmark wants a prediction, uint8 [H, W]."""
        return Path(f"{key}.png"), palette_image(prediction, self.palette)

    def describe_label(self, index: int) -> str:
        return str(self.label_path(index))


def upright(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def palette_image(label: np.ndarray, palette: list[tuple[int, int, int]]) -> Image.Image:
    """Class numbers uint8 [H, W] as a palette PNG's content; what is no class is white."""
    image = Image.fromarray(label)
    colours = [*palette, *[(255, 255, 255)] * (256 - len(palette))]
    image.putpalette([channel for colour in colours for channel in colour])
    return image


def open_picture(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """(RGB picture as stored, the turn that makes it upright or None)."""
    picture = decode(path)
    turn = TURNS.get(picture.getexif().get(ORIENTATION_TAG))
    return (picture if picture.mode == "RGB" else picture.convert("RGB")), turn


def open_label(path: Path) -> Image.Image:
    """Class numbers of a grey or palette PNG, mode L or P (both resample as numbers)."""
    label = decode(path)
    if label.mode == "1":
        return label.convert("L").point(lambda value: value // 255)
    if label.mode not in ("L", "P"):
        raise UserError(
            f"{path} is a {label.mode} picture: a label has one 8-bit channel of class numbers (grey or palette PNG)"
        )
    return label


def decode(path: Path) -> Image.Image:
    try:
        picture = Image.open(path)
        picture.load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: add it, or take its id out of the split file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as a picture ({error}): replace it") from error
    return picture


def check_label(label: Image.Image, num_classes: int, source: str) -> None:
    """Raise UserError where a value is neither a class nor 255."""
    counts = label.histogram()
    strange = [value for value in range(num_classes, IGNORE_INDEX) if counts[value]]
    if strange:
        shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
        raise UserError(
            f"{source} holds {shown}, outside the {num_classes} classes 0..{num_classes - 1} (255: ignored): "
            "correct the label or add the classes"
        )


def require_folder(folder: Path, dataset: str, wanted: str) -> Path:
    if not folder.is_dir():
        raise UserError(
            f"{dataset}: no folder {folder} (looked for {wanted}): give --data-root DIR, "
            f"set DEEPLAB_{dataset.upper()}_ROOT, or edit mypath.py"
        )
    return folder


def read_lines(path: Path) -> list[str]:
    """The non-blank lines of a text file, stripped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it lists the ids of the split, one a line") from None
    return [line.strip() for line in lines if line.strip()]
