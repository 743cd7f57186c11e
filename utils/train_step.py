"""One optimizer step: forward, loss, backward and update. The host launches it; nothing waits for the device."""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from utils.distributed import world_size
from utils.distributed.device import autocast
from utils.distributed.sums import AllSums, float64
from utils.inference import Normalize
from utils.optim import step_with_mean

Criterion = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # logits, label -> sums of the loss, of the pixel weights


class TrainStep:
    """Trains `network` by one step a call. Its loss is the mean over the labeled pixels of all processes.

    `network` may be wrapped or compiled. `normalize` takes its images; `memory_format` is that of its weights. `scaler`
    is enabled with `amp` fp16 alone.
    """

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        *,
        normalize: Normalize,
        amp: str,
        memory_format: torch.memory_format,
        device: torch.device,
    ):
        self.network, self.criterion, self.optimizer, self.scaler = network, criterion, optimizer, scaler
        self.normalize, self.amp, self.memory_format, self.device = normalize, amp, memory_format, device

    def __call__(self, micro_batches: list[dict], flags: Callable[[], Sequence[float]]) -> AllSums:
        """Sums over all processes: of the loss, of the pixel weights, and of the `flags` read after the backward pass.

        No weight changes if the loss is not finite. A micro-batch: `Trainer.train_step`.
        """
        self.optimizer.zero_grad()
        # The gradients are those of the summed loss over a constant, scaled afterwards to the mean over the labeled
        # pixels, whose number no micro-batch knows alone. The constant keeps fp16 within its range.
        pixels = sum(batch["label"].numel() for batch in micro_batches) * world_size()
        sums = [self.backward(batch, pixels, is_last=batch is micro_batches[-1]) for batch in micro_batches]
        # One all_reduce carries the loss and the flags
        sums = AllSums(float64(torch.stack(sums)).sum(0), flags(), device=self.device)
        self.update(*sums.tensor[:2], pixels=pixels)
        return sums

    def backward(self, batch: dict, pixels: int, *, is_last: bool) -> Tensor:
        """Add the gradients of the summed loss / `pixels`. Returns [sum of the loss, sum of the weights]."""
        image = batch["image"].to(self.device, non_blocking=True)
        label = batch["label"].to(self.device, non_blocking=True).long()
        image = self.normalize(image).contiguous(memory_format=self.memory_format)
        # DDP exchanges the gradients of all micro-batches once, with the last
        is_local = world_size() > 1 and not is_last
        with self.network.no_sync() if is_local else contextlib.nullcontext():
            with autocast(self.amp, self.device):
                logits = self.network(image)
            total, weight = self.criterion(logits.float(), label)
            # NaN instead of 1 if the loss is not finite: then no gradient is, as `step_with_mean` needs it
            factor = 1 + 0 * total.detach()
            self.scaler.scale(factor * total / pixels).backward()
        return torch.stack([total.detach(), weight.detach()])

    def update(self, total: Tensor, weight: Tensor, *, pixels: int) -> None:
        """Step the optimizer: `total` and `weight` are summed over the batch, the gradients those of total / `pixels`,
        averaged over the processes.
        """
        has_labels = weight > 0
        loss = total / weight.where(has_labels, 1)
        divisor = (weight / (pixels * world_size())).where(has_labels, 1)
        step_with_mean(self.optimizer, self.scaler, divisor=divisor, is_finite=loss.isfinite())
