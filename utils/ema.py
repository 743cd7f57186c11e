"""An exponential moving average of a network."""

import copy

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedNetwork:
    """`module`: a copy of `model` whose weights and statistics `update` moves by 1 - `decay` of the difference.

    The first update copies. The lists are built once and updated in one call: torch's `AveragedModel` builds them in
    each update, which takes a GPU's host longer than the rest of the optimizer step.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.average, self.num_updates = get_ema_multi_avg_fn(decay), 0
        self.averaged, self.current = floating(self.module), floating(model)
        # Counters of batches are no floating-point numbers: both networks have the same
        for (name, buffer), own in zip(model.named_buffers(), self.module.buffers(), strict=True):
            if not own.is_floating_point():
                owner, _, leaf = name.rpartition(".")
                setattr(self.module.get_submodule(owner), leaf, buffer)

    def update(self) -> None:
        if self.num_updates:
            self.average(self.averaged, self.current, self.num_updates)
        else:
            for averaged, current in zip(self.averaged, self.current, strict=True):
                averaged.copy_(current)
        self.num_updates += 1


def floating(model: nn.Module) -> list[Tensor]:
    """Parameters and floating-point buffers, without a graph."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
