"""SGD and AdamW with every trainable parameter in exactly one group, and their step."""

from itertools import chain

import torch
from torch import Tensor, nn


def build_optimizer(
    model: nn.Module,
    backbone: nn.Module,
    *,
    kind: str = "sgd",
    lr: float,
    head_lr_factor: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool = False,
    is_decoupled: bool = False,
) -> torch.optim.Optimizer:
    """SGD or AdamW (`kind` sgd or adamw) over the groups of `parameter_groups`.

    `momentum` is that of SGD, and the first beta of AdamW; its second is 0.999. `is_decoupled`: SGD with decoupled
    weight decay, see `decay_weights`; that of AdamW always is.
    """
    groups = parameter_groups(model, backbone, lr=lr, head_lr_factor=head_lr_factor, weight_decay=weight_decay)
    if is_decoupled:
        for group in groups:
            group["decoupled_decay"], group["weight_decay"] = group["weight_decay"], 0.0
    # On MPS the fused kernel of older PyTorch ignores what `step_with_mean` sets (pytorch/pytorch#186360)
    is_fused = groups[0]["params"][0].device.type != "mps"
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=is_fused)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=is_fused)


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


def step_with_mean(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    *,
    divisor: Tensor,
    is_finite: Tensor,
    max_norm: float = 0.0,
) -> None:
    """Step with the gradients over `divisor`, or not at all unless `is_finite`: both scalars on the device.

    With `max_norm` the gradients are scaled down where the L2 norm of all of them is larger. The fused kernel reads all
    of it there, so nothing waits for a GPU. Enabled, `scaler` decides by the gradients alone whether to step: those of
    a loss that is not finite must not be finite either.
    """
    gradients = gradients_of(optimizer)
    if max_norm:
        scale = scaler.scale(torch.ones_like(divisor))
        norm = nn.utils.get_total_norm(gradients) / scale / divisor
        divisor = divisor * (norm / max_norm).clamp_min(1)
    decay_weights(optimizer, is_finite)
    if optimizer.defaults["fused"]:
        optimizer.grad_scale, optimizer.found_inf = divisor.float(), 1.0 - is_finite.float()
    elif is_finite:
        torch._foreach_div_(gradients, float(divisor))
    else:
        return
    scaler.step(optimizer)
    scaler.update()


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def decay_weights(optimizer: torch.optim.Optimizer, is_finite: Tensor) -> None:
    """Multiply the weights of groups with decoupled weight decay by 1 - decay * lr / base_lr, if `is_finite`.

    Loshchilov and Hutter, arXiv 1711.05101, algorithm 1: the decay follows the schedule, but not the learning rate.
    """
    for group in optimizer.param_groups:
        if decay := group.get("decoupled_decay"):
            factor = 1 - decay * group["lr"] / group["base_lr"] * is_finite
            parameters = [parameter.detach() for parameter in group["params"]]
            torch._foreach_mul_(parameters, factor.to(parameters[0]))


def init_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter of SGD a momentum buffer, with its memory format: the one it has, else zeros.

    Fused SGD would allocate it in its first step, and leave it uninitialized where that step is skipped; it also reads
    the memory of all tensors in one order.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            buffer = torch.zeros_like(parameter)
            if (old := optimizer.state[parameter].get("momentum_buffer")) is not None:
                buffer.copy_(old)
            optimizer.state[parameter]["momentum_buffer"] = buffer


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Load the buffers of a checkpoint's `state`, but keep the settings that `optimizer` was built with."""
    fresh = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, fresh, strict=True):
        group.update(settings)
    init_momentum(optimizer)
