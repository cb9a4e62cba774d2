# SPDX-License-Identifier: MIT
"""What a run remembers of its losses, on the device, and reads only now and then."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.errors import NonFiniteError

LOSS_NAMES = ("D_A", "G_A", "cycle_A", "idt_A", "D_B", "G_B", "cycle_B", "idt_B")
_CYCLE = [LOSS_NAMES.index("cycle_A"), LOSS_NAMES.index("cycle_B")]


class LossRecord:
    """Sums of the losses of an epoch, and the first step at which one was not finite.

    `observe` runs on the device alone, so that it can be part of a captured step; `check` and
    `mean_cycle_loss` read, one synchronisation each.

    Args:
        device: where the losses live.
    """

    def __init__(self, device: torch.device) -> None:
        count = len(LOSS_NAMES)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self._sums = torch.zeros(count, dtype=torch.float64, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad = torch.zeros(count, dtype=torch.bool, device=device)

    def observe(self, losses: dict[str, Tensor], skipped: Tensor | None) -> None:
        """Take note of a step.

        Args:
            losses: 0-d, by name.
            skipped: 0-d bool, whether fp16 scaling skipped the step, which excuses it; or None.
        """
        values = torch.stack([losses[name] for name in LOSS_NAMES]).double()
        bad = ~values.isfinite()
        if skipped is not None:
            bad = bad & ~skipped
        self.step.add_(1)
        first = bad.any() & (self._bad_step < 0)
        self._bad_step.copy_(torch.where(first, self.step, self._bad_step))
        self._bad.logical_or_(bad & first)
        self._sums.add_(values.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
        self._steps.add_(1)

    def check(self) -> None:
        """Raise if a loss was not finite at any step so far.

        Raises:
            NonFiniteError: naming the losses and the first step.
        """
        step = int(self._bad_step)
        if step >= 0:
            names = [n for n, bad in zip(LOSS_NAMES, self._bad.tolist(), strict=True) if bad]
            raise NonFiniteError(
                f"step {step}: {', '.join(names)} not finite. The run stops here, and the saves "
                "from before stay as they are. Lower --lr or use --precision fp32; flat black or "
                "white pictures are a known cause."
            )

    def mean_cycle_loss(self) -> float:
        """Return the mean of cycle_A + cycle_B over the epoch so far."""
        return float(self._sums[_CYCLE].sum() / self._steps.clamp(min=1))

    def begin_epoch(self) -> None:
        """Forget the sums."""
        self._sums.zero_()
        self._steps.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the live tensors by name."""
        return {
            "step": self.step,
            "sums": self._sums,
            "steps": self._steps,
            "bad_step": self._bad_step,
            "bad": self._bad,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy values into the live tensors."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
