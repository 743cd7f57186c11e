"""Networks of timm (PyTorch Image Models) as backbones, `--backbone timm/NAME`. timm is not a requirement.

Any network is taken whose `features_only` and `output_stride` work in timm.
"""

import functools
import re
from collections.abc import Mapping
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import UserError
from utils.suggest import did_you_mean

INSTALL = "pip install timm"
LOW_LEVEL_STRIDE = 4
FLATTENED = re.compile(
    r"^(\w+?)_(\d+)\."
)  # stages_0.blocks.0 of a feature network is stages.0.blocks.0 of the classifier


class TimmBackbone(nn.Module):
    """`image [B, 3, H, W] -> low-level [B, C, H/4, W/4], features [B, out_channels, H/output_stride, W/output_stride]`

    `name`: in timm, also with the tag of its weights. `mean` and `std` are those of its published weights.
    Raises UserError without timm, and for a network that timm does not build with this stride.
    """

    def __init__(self, name: str, *, output_stride: int):
        super().__init__()
        self.name, self.output_stride = name, output_stride
        self.body = create(name, output_stride)
        info, config = self.body.feature_info, self.body.pretrained_cfg
        channels, strides = info.channels(), info.reduction()
        if LOW_LEVEL_STRIDE not in strides or strides[-1] != output_stride:
            raise UserError(
                f"timm/{name} has features at strides {', '.join(map(str, strides))}, DeepLab needs {LOW_LEVEL_STRIDE} "
                f"and {output_stride}: give another `out_stride` or `backbone`"
            )
        self.low_level = max(index for index, stride in enumerate(strides) if stride == LOW_LEVEL_STRIDE)
        self.low_level_channels, self.out_channels = channels[self.low_level], channels[-1]
        self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.needs_multiple = self.rounds_down()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if not self.needs_multiple:
            maps = self.body(image)  # sides rounded up at each stride
            return maps[self.low_level], maps[-1]
        # Patches leave out what exceeds a multiple of the stride: centered zeros, the mean color, complete it. At
        # k * output_stride + 1 their centers are within 2 pixels of those that align_corners takes them for
        height, width = image.shape[-2:]
        left, right = self.margins(width)
        top, bottom = self.margins(height)
        maps = self.body(F.pad(image, (left, right, top, bottom)))
        low_level = maps[self.low_level]
        low_level = low_level.narrow(-2, top // LOW_LEVEL_STRIDE, divided(height, LOW_LEVEL_STRIDE))
        return low_level.narrow(-1, left // LOW_LEVEL_STRIDE, divided(width, LOW_LEVEL_STRIDE)), maps[-1]

    @torch.no_grad()
    def rounds_down(self) -> bool:
        """Whether the network takes multiples of the stride alone, or leaves the rest out: by images of zeros.

        Raises UserError if its maps have other sides at a multiple too.
        """
        device = next(self.body.parameters()).device
        self.body.eval()  # batch norm keeps its statistics
        for side, is_multiple in ((3 * self.output_stride + 1, False), (4 * self.output_stride, True)):
            try:
                maps = self.body(torch.zeros(1, 3, side, side, device=device))
            except RuntimeError:  # two maps of different sides do not add
                continue
            found = [maps[self.low_level].shape[-2:], maps[-1].shape[-2:]]
            if found == [(divided(side, stride),) * 2 for stride in (LOW_LEVEL_STRIDE, self.output_stride)]:
                self.body.train()
                return is_multiple
        raise UserError(
            f"timm/{self.name} does not pad its convolutions, and its maps are too small: give another `backbone`"
        )

    def margins(self, side: int) -> tuple[int, int]:
        """Pixels to add before and after `side` for a multiple of the output stride."""
        missing = divided(side, self.output_stride) * self.output_stride - side
        return (missing + 1) // 2, missing // 2

    def published_weights(self) -> dict[str, Tensor]:
        """The ImageNet weights of timm, downloaded once by its own loader, by the names of a DeepLab.

        Raises UserError if there are none, or if the download fails.
        """
        try:
            body = create_features(self.name, self.output_stride, pretrained=True)
        except Exception as error:  # those of the Hub, of HTTP and of the disk have no common class
            raise UserError(
                f"timm has not got the weights of {self.name} ({reason(error)}): check the network, or give "
                "`backbone_weights` a file, or none"
            ) from error
        return {f"backbone.body.{name}": value for name, value in body.state_dict().items()}

    def renamed(self, entries: Mapping) -> Mapping:
        """Weights of timm's classifier by the names of a DeepLab, without the layers after the features.

        Those that have such names already, or fit nowhere, are returned as they are.
        """
        entries = {name.removeprefix("module."): value for name, value in entries.items()}  # of DataParallel
        if any(name.startswith("backbone.") for name in entries):
            return entries
        published = {name: FLATTENED.sub(r"\1.\2.", name) for name in self.body.state_dict()}
        found = {name: entries.get(name, entries.get(other)) for name, other in published.items()}
        return {f"backbone.body.{name}": value for name, value in found.items() if value is not None} or entries

    def convert_sync_batch_norm(self, model: nn.Module) -> nn.Module:
        """`model` with synchronized batch norm: PyTorch's function would lose the activation inside timm's layers."""
        return library(self.name).layers.convert_sync_batchnorm(model)


def create(name: str, output_stride: int) -> nn.Module:
    """timm's feature network with initial weights. Raises UserError if there is no such network."""
    timm = library(name)
    if not timm.is_model(name):
        raise UserError(
            f"timm {timm.__version__} has no network {name!r}: give one of timm.list_models()"
            f"{did_you_mean(name, timm.list_models())}"
        )
    try:
        return create_features(name, output_stride, pretrained=False)
    except Exception as error:  # TypeError, AssertionError and others, by network
        raise UserError(
            f"timm/{name} gives no features at output stride {output_stride} ({reason(error)}): give another "
            "`out_stride` or `backbone`"
        ) from error


def create_features(name: str, output_stride: int, *, pretrained: bool) -> nn.Module:
    build = functools.partial(
        library(name).create_model, name, features_only=True, output_stride=output_stride, pretrained=pretrained
    )
    device = torch.get_default_device()
    if device.type != "meta":
        return build()
    with torch.random.fork_rng(devices=()), torch.device("cpu"):  # on meta, some compute with values and fail
        return build().to(device)


def library(name: str) -> ModuleType:
    """timm. Raises UserError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"`backbone` timm/{name} needs timm: {INSTALL}") from error
    return timm


def divided(side: int, stride: int) -> int:
    """Rounded up."""
    return (side + stride - 1) // stride


def reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
