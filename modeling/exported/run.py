"""Run an ONNX file of export.py with onnxruntime, in the place of a network."""

from pathlib import Path

import torch
from torch import Tensor, nn

from modeling.exported.metadata import Metadata
from utils.errors import UserError

INSTALL = "pip install onnx onnxscript onnxruntime"  # the extra `export` of pyproject.toml


class OnnxModel(nn.Module):
    """`image float32 [B, 3, H, W], RGB 0..255 -> logits [B, K, H, W]`, rounded to uint8 for the graph.

    The graph normalizes and pads by itself, so a `Predictor` is told to do neither: `mean` 0, `std` 1/255, any side.
    A graph of labels gives 0 for the label and -inf for the other classes, so that its probability is 1.
    `metadata`: what the file says. A graph computes on the CPU, after `to` a GPU there, if onnxruntime has CUDA.
    Raises UserError for a file that cannot be read or was not written by export.py, and without onnxruntime.
    """

    mean, std, output_stride = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), 1

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f"no file {self.path}: give the path of an export")
        self.session = open_session(self.path, torch.device("cpu"))
        entries = self.session.get_modelmeta().custom_metadata_map
        self.metadata = Metadata.from_strings(entries, self.path)

    @property
    def gives_labels(self) -> bool:
        return self.metadata.output == "labels"

    def to(self, device: torch.device | str) -> "OnnxModel":
        device = torch.device(device)
        if device.type == "cuda":
            self.session = open_session(self.path, device)
        return self

    def forward(self, image: Tensor) -> Tensor:
        output = self.run(image.round().clamp(0, 255).to(torch.uint8))
        if self.gives_labels:
            classes = torch.arange(len(self.metadata.classes), device=output.device).view(1, -1, 1, 1)
            output = (output[:, None] == classes).float().log()  # [B, K, H, W]
        return output

    def run(self, image: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> the output of the graph, on the same device. Raises UserError for another size."""
        size = self.metadata.size
        if size and tuple(image.shape[-2:]) != size:
            raise UserError(
                f"{self.path} takes images of {size[0]}x{size[1]} alone, this one has {image.shape[-2]}x"
                f"{image.shape[-1]}: export it without `size`"
            )
        feed = {self.session.get_inputs()[0].name: image.cpu().contiguous().numpy()}
        return torch.from_numpy(self.session.run(None, feed)[0]).to(image.device)


def open_session(path: Path, device: torch.device):
    """An onnxruntime session with as many threads as PyTorch uses. Raises UserError for a file that it cannot read."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path} needs onnxruntime: {INSTALL}") from None
    providers = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers = [("CUDAExecutionProvider", {"device_id": device.index or 0}), *providers]
    elif device.type == "cuda":
        print(f"note: {path} runs on the CPU: this onnxruntime has no CUDA (pip install onnxruntime-gpu)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(str(path), options, providers)
    except Exception as error:  # its exception classes are not public
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as an ONNX file ({reason}): give another file") from error
