# SPDX-License-Identifier: MIT
"""lsgan_loss in Triton: partial sums, then their sum, always in one order."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton, _triton_loss
from cyclegan_fast.ops._triton_loss import loss_workspace as loss_workspace


@triton.jit
def lsgan_loss_fwd_kernel(
    pred_ptr,  # [numel]
    target_ptr,  # [numel] or None
    target_value: tl.float64,  # where there is no tensor
    workspace_ptr,  # acc [partials]
    numel,
    chunk,  # elements per program
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The first stage: each program sums (pred - target)^2 over its chunk."""
    pid = tl.program_id(0).to(tl.int64)
    end = tl.minimum((pid + 1) * chunk, numel)
    total = tl.zeros((BLOCK,), ACC)
    for first in range(pid * chunk, end, BLOCK):
        offs = first + tl.arange(0, BLOCK)
        mask = offs < end
        d = _difference(pred_ptr, target_ptr, target_value, offs, mask, ACC)
        total += d * d
    tl.store(workspace_ptr + pid, tl.sum(total, 0))


@triton.jit
def lsgan_loss_bwd_kernel(
    grad_loss_ptr,  # acc []
    pred_ptr,  # [numel]
    target_ptr,  # [numel] or None
    target_value: tl.float64,
    grad_pred_ptr,  # [numel] or None
    grad_target_ptr,  # [numel] or None
    numel,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad_pred = 2 grad_loss (pred - target) / numel, grad_target = -grad_pred."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < numel
    factor = 2 * tl.load(grad_loss_ptr) / tl.cast(numel, ACC)
    grad = factor * _difference(pred_ptr, target_ptr, target_value, offs, mask, ACC)
    if grad_pred_ptr is not None:
        tl.store(grad_pred_ptr + offs, grad, mask=mask)
    if grad_target_ptr is not None:
        tl.store(grad_target_ptr + offs, -grad, mask=mask)


@triton.jit
def _difference(pred_ptr, target_ptr, target_value, offs, mask, ACC: tl.constexpr):
    pred = tl.load(pred_ptr + offs, mask=mask, other=0).to(ACC)
    if target_ptr is None:
        d = pred - tl.full((), target_value, ACC)
    else:
        d = pred - tl.load(target_ptr + offs, mask=mask, other=0).to(ACC)
    return tl.where(mask, d, 0)


def lsgan_loss_fwd(
    pred: Tensor, target: Tensor | None, target_value: float, loss: Tensor, workspace: Tensor
) -> None:
    """Write the mean squared difference into loss."""
    cover = _triton_loss.plan(pred.numel())
    with _triton.on(pred):
        lsgan_loss_fwd_kernel[(cover.partials,)](
            pred,
            target,
            target_value,
            workspace,
            pred.numel(),
            cover.chunk,
            ACC=_triton.accumulator(pred),
            BLOCK=_triton_loss.BLOCK,
        )
        _triton_loss.mean(workspace, pred.numel(), loss)


def lsgan_loss_bwd(
    grad_loss: Tensor,
    pred: Tensor,
    target: Tensor | None,
    target_value: float,
    grad_pred: Tensor | None,
    grad_target: Tensor | None,
) -> None:
    """Write the gradients that are asked for."""
    with _triton.on(pred):
        lsgan_loss_bwd_kernel[(triton.cdiv(pred.numel(), _triton_loss.BLOCK),)](
            grad_loss,
            pred,
            target,
            target_value,
            grad_pred,
            grad_target,
            pred.numel(),
            ACC=_triton.accumulator(pred),
            BLOCK=_triton_loss.BLOCK,
        )
