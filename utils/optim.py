"""SGD with every trainable parameter in exactly one group."""

import torch
from torch import nn


def build_sgd(
    model: nn.Module,
    backbone: nn.Module,
    *,
    lr: float,
    head_lr_factor: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
) -> torch.optim.SGD:
    groups = parameter_groups(model, backbone, lr=lr, head_lr_factor=head_lr_factor, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def parameter_groups(
    model: nn.Module, backbone: nn.Module, *, lr: float, head_lr_factor: float, weight_decay: float
) -> list[dict]:
    """Backbone at `lr`, the rest at `lr * head_lr_factor`; norms, biases and depthwise weights without weight decay."""
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            if parameter.requires_grad:
                key = (id(parameter) in in_backbone, is_decayed(layer, parameter))
                groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "name": f"{'backbone' if backbone_side else 'head'}{'' if decayed else ', no decay'}",
            "lr": lr if backbone_side else lr * head_lr_factor,
            "base_lr": lr if backbone_side else lr * head_lr_factor,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (backbone_side, decayed), parameters in groups.items()
    ]


def is_decayed(layer: nn.Module, parameter: nn.Parameter) -> bool:
    """Convolution weights are, but for depthwise ones; vectors (norms, biases) are not."""
    is_depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
    return parameter.ndim > 1 and not is_depthwise


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Momentum from a checkpoint, with the rates, decay and momentum factor that `optimizer` was built with."""
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, fresh, strict=True):
        group.update(settings)
