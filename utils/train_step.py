"""One optimizer step: forward, loss, backward and update. The host launches it; nothing waits for the device."""

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from utils.distributed import world_size
from utils.distributed.device import autocast
from utils.distributed.sums import AllSums, float64
from utils.inference import Normalize
from utils.mixup import draw_share, mix
from utils.optim import step_with_mean
from utils.sam import ascended

# What the network gives (logits, or a tuple of them), label -> sums of the loss, of the pixel weights
Criterion = Callable[[Tensor | tuple[Tensor, ...], Tensor], tuple[Tensor, Tensor]]


class TrainStep:
    """Trains `network` by one step a call. Its loss is the mean over the labeled pixels of all processes.

    `network` may be wrapped or compiled. `normalize` takes its images; `memory_format` is that of its weights. `scaler`
    is enabled with `amp` fp16 alone. Off if 0: `max_norm` of the gradients; `sam_rho` of the steps that are sharpness-
    aware; `mixup_alpha`.
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
        max_norm: float = 0.0,
        sam_rho: float = 0.0,
        mixup_alpha: float = 0.0,
    ):
        self.network, self.criterion, self.optimizer, self.scaler = network, criterion, optimizer, scaler
        self.normalize, self.amp, self.memory_format, self.device = normalize, amp, memory_format, device
        self.max_norm, self.sam_rho, self.mixup_alpha = max_norm, sam_rho, mixup_alpha

    def __call__(
        self, micro_batches: list[dict], flags: Callable[[], Sequence[float]], *, is_sharpness_aware: bool = False
    ) -> AllSums:
        """Sums over all processes: of the loss, of the pixel weights, and of the `flags` read after the backward pass.

        No weight changes if the loss is not finite. A micro-batch: `Trainer.train_step`.
        """
        self.optimizer.zero_grad()
        pixels = sum(batch["label"].numel() for batch in micro_batches) * world_size()
        if is_sharpness_aware:
            sums = self.sharpness_aware_backward(micro_batches, pixels)
        else:
            sums = self.backward(micro_batches, pixels)
        # One all_reduce carries the loss and the flags
        sums = AllSums(sums, flags(), device=self.device)
        self.update(*sums.tensor[:2], pixels=pixels)
        return sums

    def sharpness_aware_backward(self, micro_batches: list[dict], pixels: int) -> Tensor:
        """As `backward`, but the gradients are those near the weights where the loss is higher: see `ascended`."""
        # Both passes draw the same random numbers: dropout, MixUp
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            sums = self.backward(micro_batches, pixels)
        with ascended(self.network, self.sam_rho):
            others = self.backward(micro_batches, pixels)
        return sums + 0 * others  # not finite if one of them is not

    def backward(self, micro_batches: list[dict], pixels: int) -> Tensor:
        """Add the gradients of the summed loss / `pixels`. Returns [sum of the loss, sum of the weights], float64."""
        # The gradients are those of the summed loss over a constant, scaled afterwards to the mean over the labeled
        # pixels, whose number no micro-batch knows alone. The constant keeps fp16 within its range.
        sums = [self.backward_one(batch, pixels, is_last=batch is micro_batches[-1]) for batch in micro_batches]
        return float64(torch.stack(sums)).sum(0)

    def backward_one(self, batch: dict, pixels: int, *, is_last: bool) -> Tensor:
        """As `backward`, of one micro-batch, and not in float64."""
        image = batch["image"].to(self.device, non_blocking=True)
        label = batch["label"].to(self.device, non_blocking=True).long()
        image, share = self.normalize(image), 1.0
        if self.mixup_alpha:
            share = draw_share(self.mixup_alpha)
            image = mix(image, share)
        image = image.contiguous(memory_format=self.memory_format)
        # DDP exchanges the gradients of all micro-batches once, with the last
        is_local = world_size() > 1 and not is_last
        with self.network.no_sync() if is_local else contextlib.nullcontext():
            with autocast(self.amp, self.device):
                outputs = self.network(image)
            total, weight = self.loss(in_float32(outputs), label, share)
            # NaN instead of 1 if the loss is not finite: then no gradient is, as `step_with_mean` needs it
            factor = 1 + 0 * total.detach()
            self.scaler.scale(factor * total / pixels).backward()
        return torch.stack([total.detach(), weight.detach()])

    def loss(self, outputs: Tensor | tuple[Tensor, ...], label: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """That of the labels, or with MixUp the mean of two losses: of its own label and that of the image before."""
        total, weight = self.criterion(outputs, label)
        if share == 1:
            return total, weight
        other_total, other_weight = self.criterion(outputs, label.roll(1, 0))
        return torch.lerp(other_total, total, share), torch.lerp(other_weight, weight, share)

    def update(self, total: Tensor, weight: Tensor, *, pixels: int) -> None:
        """Step the optimizer: `total` and `weight` are summed over the batch, the gradients those of total / `pixels`,
        averaged over the processes.
        """
        has_labels = weight > 0
        loss = total / weight.where(has_labels, 1)
        divisor = (weight / (pixels * world_size())).where(has_labels, 1)
        step_with_mean(self.optimizer, self.scaler, divisor=divisor, is_finite=loss.isfinite(), max_norm=self.max_norm)


def in_float32(outputs: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return outputs.float() if isinstance(outputs, Tensor) else tuple(each.float() for each in outputs)
