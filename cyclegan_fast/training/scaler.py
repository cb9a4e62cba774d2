# SPDX-License-Identifier: MIT
"""Loss scaling for fp16, kept on the device, with a floor and an end."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.errors import LossScaleError
from cyclegan_fast.training.optimizer import Adam

# PyTorch's GradScaler: start, growth, backoff and interval. Its scale has no floor and its skipping
# no end (pytorch#40497): from 2**16 down to the floor are 16 halvings, so 32 skipped steps in a row
# are not the search for a scale.
_START = 2.0**16
_GROWTH, _BACKOFF, _INTERVAL = 2.0, 0.5, 2000
_FLOOR, _CEILING = 1.0, 2.0**24
_MOST_SKIPPED = 32


class LossScaler:
    """Scale that keeps fp16 gradients in range; a step whose gradients overflow is skipped.

    Everything is a tensor on the device and nothing is read by the host but in `check`, so that a
    step can be captured in a CUDA graph.

        scale <- clamp(scale / 2 if overflow else scale * 2 after 2000 good steps, 1, 2^24)

    Args:
        device: where the gradients live.
    """

    def __init__(self, device: torch.device) -> None:
        self._scale = torch.full((), _START, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)
        self._skipped_in_row = torch.zeros((), dtype=torch.int64, device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def factor(self) -> Tensor:
        """The scale, 0-d float32, live."""
        return self._scale

    def scale(self, loss: Tensor) -> Tensor:
        """Return loss * scale."""
        return loss * self._scale

    def unscale(self, optimizer: Adam) -> Tensor:
        """Divide the gradients by the scale, in place; make the optimizer skip if one overflowed.

        Returns:
            0-d float32: 1 if any gradient is not finite, else 0.
        """
        gradients = [p.grad for p in optimizer.parameters if p.grad is not None]
        overflow = torch.zeros_like(self._scale)
        torch._amp_foreach_non_finite_check_and_unscale_(
            gradients, overflow, self._scale.double().reciprocal().float()
        )
        optimizer.found_inf = overflow
        return overflow

    def update(self, *overflows: Tensor) -> Tensor:
        """Set the scale for the next step from what the optimizers of this one found.

        Returns:
            0-d bool: whether any of them was skipped.
        """
        overflow = torch.stack(overflows).amax()
        torch._amp_update_scale_(self._scale, self._good, overflow, _GROWTH, _BACKOFF, _INTERVAL)
        self._scale.clamp_(_FLOOR, _CEILING)
        skipped = overflow > 0
        self._skipped_in_row.add_(1).mul_(skipped)
        self._skipped.add_(skipped)
        return skipped

    def check(self) -> None:
        """Read the counters (one synchronisation) and raise if training stands still.

        Raises:
            LossScaleError: 32 or more steps in a row were skipped.
        """
        in_row = int(self._skipped_in_row)
        if in_row >= _MOST_SKIPPED:
            raise LossScaleError(
                f"fp16: the last {in_row} steps were all skipped, down to a loss scale of "
                f"{float(self._scale):g}: gradients overflow whatever the scale. "
                "Use --precision bf16 or fp32, or a lower --lr; the newest save is from before."
            )

    @property
    def skipped(self) -> int:
        """Steps skipped so far (one synchronisation)."""
        return int(self._skipped)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live tensors by name."""
        return {
            "scale": self._scale,
            "good": self._good,
            "skipped_in_row": self._skipped_in_row,
            "skipped": self._skipped,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy values into the live tensors."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
