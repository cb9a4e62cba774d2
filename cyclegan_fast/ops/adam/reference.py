# SPDX-License-Identifier: MIT
"""The specification of adam, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def adam_reference(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    lr: Tensor,
    *,
    beta1: float = 0.5,
    beta2: float = 0.999,
    eps: float = 1e-8,
    found_inf: Tensor | None = None,
    halves: list[Tensor | None] | None = None,
) -> None:
    """Update tensor by tensor; see :func:`cyclegan_fast.ops.adam` for the arguments."""
    made = 1.0 if found_inf is None else (found_inf == 0).double()
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        step = steps[i].double() + made
        steps[i].copy_(step)
        step = step.clamp(min=1)
        avg = exp_avgs[i] * beta1 + grad * (1 - beta1)
        avg_sq = exp_avg_sqs[i] * beta2 + grad.square() * (1 - beta2)
        step_size = (lr.double() / (1 - beta1**step)).to(param.dtype)
        root = (1 - beta2**step).sqrt().to(param.dtype)
        new = param - step_size * avg / (avg_sq.sqrt() / root + eps)
        for target, value in ((exp_avgs[i], avg), (exp_avg_sqs[i], avg_sq), (param, new)):
            # A step whose gradients overflowed is no step: not even nan may enter.
            target.copy_(value if found_inf is None else torch.where(found_inf == 0, value, target))
        if halves and (half := halves[i]) is not None:
            half.copy_(param)
