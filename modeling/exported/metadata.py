"""What an exported file says about itself: in ONNX the entries of metadata_props, beside a program metadata.json."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from utils.errors import UserError
from utils.palettes import Palette

PROTOCOL = "whole"  # the only one that an exported graph contains: docs/scoring.md


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """`classes` and `palette`: by class number. `protocol`, `output_stride`, `mean`, `std`: what the graph does.
    `output`: logits or labels. `size`: (height, width), None for any. `half`: whether it computes in float16.
    `checkpoint`: the name of the file it was made from, `version`: of this project. `dataset` and `crop_size`: those of
    training, None where unknown.
    """

    classes: tuple[str, ...]
    palette: Palette
    output_stride: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    size: tuple[int, int] | None
    half: bool
    checkpoint: str
    version: str
    dataset: str | None = None
    crop_size: tuple[int, ...] | None = None
    project: str = "deeplabv3plus"
    protocol: str = PROTOCOL

    def to_strings(self) -> dict[str, str]:
        """Each entry as JSON."""
        return {name: json.dumps(value, ensure_ascii=False) for name, value in asdict(self).items()}

    @classmethod
    def from_strings(cls, entries: Mapping[str, str], source: object) -> "Metadata":
        """The opposite of `to_strings`. Raises UserError if `source` was not written by export.py."""
        try:
            known = {field.name: freeze(json.loads(entries[field.name])) for field in fields(cls)}
        except (KeyError, json.JSONDecodeError):
            raise UserError(
                f"{source} was not written by export.py (its metadata does not name classes and protocol): give an "
                "export of this project, or a checkpoint"
            ) from None
        return cls(**known)

    @property
    def config(self) -> dict:
        """The entries of a checkpoint's `config` that evaluate.py and predict.py read."""
        return {"dataset": self.dataset, "crop_size": self.crop_size}


def freeze(value: object) -> object:
    """JSON's lists as tuples."""
    return tuple(map(freeze, value)) if isinstance(value, list) else value
