"""Predictions as files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import writing
from utils.scoring.loop import Observer


class Submission(Observer):
    """Writes each prediction below `folder`: `to_file(id, prediction)` gives its relative path and its image."""

    def __init__(self, folder: Path, to_file: Callable[[str, np.ndarray], tuple[Path, Image.Image]]):
        self.folder, self.to_file = folder, to_file

    def measure(self, key: str, prediction: Tensor, label: Tensor, image: Tensor | None) -> None:
        """Write the file. Raises UserError if it cannot be written."""
        name, image = self.to_file(key, prediction.numpy())
        path = self.folder / name
        with writing(path, "give another `save_predictions`"):
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)

    def add(self, measured: None) -> None:
        """Nothing to add up."""

    def all_reduce(self, device: torch.device) -> None:
        """Nothing to merge: each process writes the files of its own images."""
