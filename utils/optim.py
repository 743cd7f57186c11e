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
    """SGD over the groups of `parameter_groups`."""
    groups = parameter_groups(model, backbone, lr=lr, head_lr_factor=head_lr_factor, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)


def parameter_groups(
    model: nn.Module, backbone: nn.Module, *, lr: float, head_lr_factor: float, weight_decay: float
) -> list[dict]:
    """Up to four groups of the trainable parameters: backbone and head, each with and without weight decay.

    The head's learning rate is `lr * head_lr_factor`. `base_lr` is a group's rate before the schedule. Norms, biases
    and depthwise weights have no weight decay.
    """
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
            "name": f"{'backbone' if is_backbone else 'head'}{'' if has_decay else ', no decay'}",
            "lr": lr if is_backbone else lr * head_lr_factor,
            "base_lr": lr if is_backbone else lr * head_lr_factor,
            "weight_decay": weight_decay if has_decay else 0.0,
        }
        for (is_backbone, has_decay), parameters in groups.items()
    ]


def is_decayed(layer: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to weights of convolutions except depthwise ones, not to norms and biases."""
    is_depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
    return parameter.ndim > 1 and not is_depthwise


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load the momentum buffers of a checkpoint's `state`, but keep the settings that `optimizer` was built with."""
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, fresh, strict=True):
        group.update(settings)
