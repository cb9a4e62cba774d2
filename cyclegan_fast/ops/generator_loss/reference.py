# SPDX-License-Identifier: MIT
"""The specification of generator_loss, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops import _common
from cyclegan_fast.ops.l1_loss import l1_loss_reference
from cyclegan_fast.ops.lsgan_loss import lsgan_loss_reference


def generator_loss_reference(
    pred_A: Tensor,
    pred_B: Tensor,
    rec_A: Tensor,
    rec_B: Tensor,
    idt_A: Tensor | None,
    idt_B: Tensor | None,
    real_A: Tensor,
    real_B: Tensor,
    weights: Tensor,
    *,
    scale: Tensor | None = None,
    tanh: bool = False,
) -> tuple[Tensor, Tensor]:
    """Each term by itself, then their sum; see :func:`cyclegan_fast.ops.generator_loss`."""

    def compared(made: Tensor | None, original: Tensor, weight: Tensor) -> Tensor:
        if made is None:
            return torch.zeros_like(weight)
        wide = _common.accumulator(made.dtype)
        made = made.to(wide).tanh() if tanh else made
        return l1_loss_reference(made, original.to(wide)) * weight

    losses = torch.stack(
        [
            lsgan_loss_reference(pred_A, True),
            lsgan_loss_reference(pred_B, True),
            compared(rec_A, real_A, weights[0]),
            compared(rec_B, real_B, weights[1]),
            compared(idt_A, real_B, weights[2]),
            compared(idt_B, real_A, weights[3]),
        ]
    )
    total = losses.sum()
    return total if scale is None else total * scale, losses.detach()
