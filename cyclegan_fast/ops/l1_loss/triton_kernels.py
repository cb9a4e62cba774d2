# SPDX-License-Identifier: MIT
"""l1_loss in Triton: partial sums and signs, then the sum of these, always in one order."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton, _triton_loss
from cyclegan_fast.ops._triton_loss import loss_workspace as loss_workspace


@triton.jit
def l1_loss_fwd_kernel(
    a_ptr,  # [numel]
    b_ptr,  # [numel]
    sign_ptr,  # int8 [numel] or None
    workspace_ptr,  # acc [partials]
    numel,
    chunk,  # elements per program
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The first stage: each program sums |a - b| over its chunk, and notes the signs."""
    pid = tl.program_id(0).to(tl.int64)
    end = tl.minimum((pid + 1) * chunk, numel)
    total = tl.zeros((BLOCK,), ACC)
    for first in range(pid * chunk, end, BLOCK):
        offs = first + tl.arange(0, BLOCK)
        mask = offs < end
        a = tl.load(a_ptr + offs, mask=mask, other=0).to(ACC)
        d = a - tl.load(b_ptr + offs, mask=mask, other=0).to(ACC)
        total += tl.abs(d)
        if sign_ptr is not None:
            # 0 at equal and at nan, as PyTorch has it.
            sign = tl.where(d > 0, 1, tl.where(d < 0, -1, 0)).to(tl.int8)
            tl.store(sign_ptr + offs, sign, mask=mask)
    tl.store(workspace_ptr + pid, tl.sum(total, 0))


@triton.jit
def l1_loss_bwd_kernel(
    grad_loss_ptr,  # acc []
    sign_ptr,  # int8 [numel]
    grad_a_ptr,  # [numel] or None
    grad_b_ptr,  # [numel] or None
    numel,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """grad_a = grad_loss sign / numel, grad_b = -grad_a."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < numel
    factor = tl.load(grad_loss_ptr) / tl.cast(numel, ACC)
    grad = factor * tl.load(sign_ptr + offs, mask=mask, other=0).to(ACC)
    if grad_a_ptr is not None:
        tl.store(grad_a_ptr + offs, grad, mask=mask)
    if grad_b_ptr is not None:
        tl.store(grad_b_ptr + offs, -grad, mask=mask)


def l1_loss_fwd(a: Tensor, b: Tensor, loss: Tensor, sign: Tensor | None, workspace: Tensor) -> None:
    """Write the mean absolute difference into loss, and its signs where asked for."""
    cover = _triton_loss.plan(a.numel())
    with _triton.on(a):
        l1_loss_fwd_kernel[(cover.partials,)](
            a,
            b,
            sign,
            workspace,
            a.numel(),
            cover.chunk,
            ACC=_triton.accumulator(a),
            BLOCK=_triton_loss.BLOCK,
        )
        _triton_loss.mean(workspace, a.numel(), loss)


def l1_loss_bwd(
    grad_loss: Tensor, sign: Tensor, grad_a: Tensor | None, grad_b: Tensor | None
) -> None:
    """Write the gradients that are asked for."""
    with _triton.on(sign):
        l1_loss_bwd_kernel[(triton.cdiv(sign.numel(), _triton_loss.BLOCK),)](
            grad_loss,
            sign,
            grad_a,
            grad_b,
            sign.numel(),
            ACC=_triton.accumulator(grad_loss),
            BLOCK=_triton_loss.BLOCK,
        )
