"""Export a trained network: trace it, write the file, check the file against the network, and only then name it."""

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from modeling.exported import check_name
from modeling.exported.check import Comparison, compare
from modeling.exported.graph import InferenceGraph, trace
from modeling.exported.metadata import Metadata
from modeling.exported.run import INSTALL, OnnxModel
from modeling.pretrained.loaded_model import LoadedModel
from utils.errors import RunFailed, UserError, writing
from utils.run.environment import project_version

# float16 has 11 bits, so logits of 10 are rounded to 0.01 in every layer
MAX_DIFFERENCE, MIN_EQUAL = {False: 1e-3, True: 0.25}, {False: 0.999, True: 0.97}


def export(
    loaded: LoadedModel,
    out: Path,
    images: Sequence[Tensor],
    *,
    format: str = "onnx",
    output: str = "logits",
    size: tuple[int, int] | None = None,
    half: bool = False,
) -> Comparison:
    """Write `loaded` to `out` (.onnx or .pt2), as `InferenceGraph` describes it, for images of any size or of `size`.

    `images`: uint8 [B, 3, H, W] each, on which the file is compared with the network.
    Raises UserError for a wrong ending, a folder that cannot be written, and without the packages of ONNX; RunFailed
    if the file differs too much from the network, which then is not left behind.
    """
    require(loaded, out, format)
    metadata = describe(loaded, output=output, size=size, half=half)
    program = trace(InferenceGraph(loaded.model, output=output, half=half), size)
    write, read = WRITERS[format]
    with writing(out, "give another `out`"), part_of(out) as part:
        write(program, part, metadata)
        found = compare(loaded.model, read(part), images, gives_labels=output == "labels")
        if not found.is_within(MAX_DIFFERENCE[half], MIN_EQUAL[half]):
            raise RunFailed(
                f"{out} not written: it differs from {loaded.source}, {found}; allowed are {MAX_DIFFERENCE[half]:g} "
                f"and {MIN_EQUAL[half]:.1%}"
            )
    return found


def require(loaded: LoadedModel, out: Path, format: str) -> None:
    """Raise UserError for what would fail after minutes."""
    if isinstance(loaded.model, OnnxModel):
        raise UserError(f"{loaded.source} is an export: give the checkpoint that it was made from")
    check_name(out, format)
    if not out.absolute().parent.is_dir():
        raise UserError(f"`out` {out}: its folder is not there: make it, or give another name")
    if format == "onnx":
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UserError(f"`format` onnx needs {error.name}: {INSTALL}") from None


def describe(loaded: LoadedModel, *, output: str, size: tuple[int, int] | None, half: bool) -> Metadata:
    model, config = loaded.model, loaded.config
    crop_size = config.get("crop_size")
    return Metadata(
        classes=loaded.classes, palette=loaded.palette, output_stride=model.output_stride, mean=model.mean,
        std=model.std, output=output, size=size, half=half, checkpoint=Path(loaded.source).name,
        version=project_version(), dataset=config.get("dataset"), crop_size=crop_size and tuple(crop_size),
    )  # fmt: skip


@contextlib.contextmanager
def part_of(out: Path) -> Iterator[Path]:
    """A name in a new folder beside `out`; what the block writes there is fsynced and renamed to `out`."""
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as folder:
        part = Path(folder) / out.name
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, out)


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    """Raises RunFailed for a version of PyTorch that cannot write the network, as 2.6 cannot."""
    names = {"input_names": ["image"], "output_names": [metadata.output]}
    with quiet():
        try:
            exported = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
        except torch.onnx.OnnxExporterError as error:
            raise RunFailed(
                f"PyTorch {torch.__version__} cannot write this network as ONNX ({type(error).__name__}): update it, "
                "or give --format torch"
            ) from error
        exported.model.metadata_props.update(metadata.to_strings())
        exported.save(path, external_data=False)


def write_program(program: torch.export.ExportedProgram, path: Path, metadata: Metadata) -> None:
    with quiet():
        torch.export.save(program, path, extra_files={"metadata.json": json.dumps(metadata.to_strings())})


def read_program(path: Path) -> Callable[[Tensor], Tensor]:
    with quiet():
        return torch.export.load(path).module()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' warnings, which are about their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


WRITERS = {"onnx": (write_onnx, lambda path: OnnxModel(path).run), "torch": (write_program, read_program)}
