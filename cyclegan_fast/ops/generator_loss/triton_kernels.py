# SPDX-License-Identifier: MIT
"""generator_loss in Triton: one launch for all terms, by blocks, then one that makes the losses."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops._triton import tanh

BLOCK = 2048  # elements of a program: eight of a thread's at eight warps, of three tensors
OPTIONS = {"num_warps": 8}
PARTIALS = 1024  # partial sums that the second stage reads at once


def generator_loss_workspace(pred_a: int, pred_b: int, image_a: int, image_b: int) -> int:
    """Return how many elements of the accumulator's dtype the partial sums take."""
    blocks = [triton.cdiv(numel, BLOCK) for numel in (pred_a, pred_b, image_a, image_b)]
    return blocks[0] + blocks[1] + 2 * (blocks[2] + blocks[3])


@triton.jit
def _judged(
    made_ptr, grad_ptr, partial_ptr, block, numel, scale, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    """Least squares to 1 of one block of predictions."""
    offs = block * BLOCK + tl.arange(0, BLOCK)
    mask = offs < numel
    d = tl.load(made_ptr + offs, mask=mask, other=0).to(ACC) - 1
    d = tl.where(mask, d, 0)
    tl.store(partial_ptr + block, tl.sum(d * d, 0))
    if grad_ptr is not None:
        tl.store(grad_ptr + offs, 2 * d * (scale / tl.cast(numel, ACC)), mask=mask)


@triton.jit
def _compared(
    made_ptr,
    target,  # acc [BLOCK]
    grad_ptr,
    partial_ptr,  # of this block
    offs,
    mask,
    factor,  # weight * scale / numel
    ACC: tl.constexpr,
    TANH: tl.constexpr,
):
    """Absolute differences of one block of pictures."""
    value = tl.load(made_ptr + offs, mask=mask, other=0).to(ACC)
    derivative = tl.full(value.shape, 1, ACC)
    if TANH:
        value = tanh(value, ACC)
        derivative = 1 - value * value
    d = tl.where(mask, value - target, 0)
    tl.store(partial_ptr, tl.sum(tl.abs(d), 0))
    if grad_ptr is not None:
        # 0 at equal and at nan, as PyTorch has it.
        sign = tl.where(d > 0, 1, tl.where(d < 0, -1, 0)).to(ACC)
        tl.store(grad_ptr + offs, factor * (derivative * sign), mask=mask)


@triton.jit
def _pictures(
    first_ptr,
    second_ptr,  # or None
    target_ptr,
    first_grad_ptr,
    second_grad_ptr,
    first_partial_ptr,
    second_partial_ptr,
    block,
    numel,
    first_weight_ptr,
    second_weight_ptr,
    scale,
    ACC: tl.constexpr,
    TANH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One block of what is compared with one original, which is read once."""
    offs = block * BLOCK + tl.arange(0, BLOCK)
    mask = offs < numel
    target = tl.load(target_ptr + offs, mask=mask, other=0).to(ACC)
    each = scale / tl.cast(numel, ACC)
    factor = tl.load(first_weight_ptr) * each
    _compared(first_ptr, target, first_grad_ptr, first_partial_ptr + block, offs, mask, factor,
              ACC, TANH)  # fmt: skip
    if second_ptr is not None:
        factor = tl.load(second_weight_ptr) * each
        _compared(second_ptr, target, second_grad_ptr, second_partial_ptr + block, offs, mask,
                  factor, ACC, TANH)  # fmt: skip


@triton.jit
def generator_loss_fwd_kernel(
    pred_a_ptr,  # [pred_a]
    pred_b_ptr,  # [pred_b]
    rec_a_ptr,  # [image_a]
    rec_b_ptr,  # [image_b]
    idt_a_ptr,  # [image_b] or None
    idt_b_ptr,  # [image_a] or None
    real_a_ptr,  # [image_a]
    real_b_ptr,  # [image_b]
    weights_ptr,  # acc [4]
    scale_ptr,  # acc [] or None
    grad_pred_a_ptr,  # as what they are gradients of, or None
    grad_pred_b_ptr,
    grad_rec_a_ptr,
    grad_rec_b_ptr,
    grad_idt_a_ptr,
    grad_idt_b_ptr,
    workspace_ptr,  # acc: partial sums of G_A, G_B, cycle_A, cycle_B, idt_A, idt_B
    pred_a,
    pred_b,
    image_a,
    image_b,
    ACC: tl.constexpr,
    TANH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The first stage: a program takes one block of one of the four groups."""
    block = tl.program_id(0).to(tl.int64)
    of_pred_a, of_pred_b = tl.cdiv(pred_a, BLOCK), tl.cdiv(pred_b, BLOCK)
    of_a, of_b = tl.cdiv(image_a, BLOCK), tl.cdiv(image_b, BLOCK)
    g_b_ptr = workspace_ptr + of_pred_a
    cycle_a_ptr = g_b_ptr + of_pred_b
    cycle_b_ptr = cycle_a_ptr + of_a
    idt_a_sums_ptr = cycle_b_ptr + of_b
    idt_b_sums_ptr = idt_a_sums_ptr + of_b
    scale = tl.full((), 1, ACC)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr)
    if block < of_a:
        _pictures(rec_a_ptr, idt_b_ptr, real_a_ptr, grad_rec_a_ptr, grad_idt_b_ptr, cycle_a_ptr,
                  idt_b_sums_ptr, block, image_a, weights_ptr, weights_ptr + 3, scale, ACC, TANH,
                  BLOCK)  # fmt: skip
    elif block < of_a + of_b:
        _pictures(rec_b_ptr, idt_a_ptr, real_b_ptr, grad_rec_b_ptr, grad_idt_a_ptr, cycle_b_ptr,
                  idt_a_sums_ptr, block - of_a, image_b, weights_ptr + 1, weights_ptr + 2, scale,
                  ACC, TANH, BLOCK)  # fmt: skip
    elif block < of_a + of_b + of_pred_a:
        _judged(pred_a_ptr, grad_pred_a_ptr, workspace_ptr, block - of_a - of_b, pred_a, scale,
                ACC, BLOCK)  # fmt: skip
    else:
        _judged(pred_b_ptr, grad_pred_b_ptr, g_b_ptr, block - of_a - of_b - of_pred_a, pred_b,
                scale, ACC, BLOCK)  # fmt: skip


@triton.jit
def _mean(partial_ptr, partials, numel, ACC: tl.constexpr, PARTIALS: tl.constexpr):
    total = tl.zeros((PARTIALS,), ACC)
    for first in range(0, partials, PARTIALS):
        offs = first + tl.arange(0, PARTIALS)
        total += tl.load(partial_ptr + offs, mask=offs < partials, other=0)
    return tl.sum(total, 0) / tl.cast(numel, ACC)


@triton.jit
def generator_loss_finish_kernel(
    workspace_ptr,
    weights_ptr,
    scale_ptr,
    losses_ptr,  # acc [6]
    total_ptr,  # acc []
    pred_a,
    pred_b,
    image_a,
    image_b,
    ACC: tl.constexpr,
    IDT_A: tl.constexpr,  # whether there is such a term
    IDT_B: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS: tl.constexpr,
):
    """The second stage: means of the partial sums, weighted, and their sum."""
    of_pred_a, of_pred_b = tl.cdiv(pred_a, BLOCK), tl.cdiv(pred_b, BLOCK)
    of_a, of_b = tl.cdiv(image_a, BLOCK), tl.cdiv(image_b, BLOCK)
    total = tl.zeros((), ACC)
    partial_ptr = workspace_ptr
    for i in tl.static_range(6):
        if i == 0:
            partials, numel = of_pred_a, pred_a
        elif i == 1:
            partials, numel = of_pred_b, pred_b
        elif i == 2 or i == 5:
            partials, numel = of_a, image_a
        else:
            partials, numel = of_b, image_b
        loss = tl.zeros((), ACC)
        if (i < 4) or (i == 4 and IDT_A) or (i == 5 and IDT_B):
            loss = _mean(partial_ptr, partials, numel, ACC, PARTIALS)
            if i >= 2:
                loss *= tl.load(weights_ptr + (i - 2))
        tl.store(losses_ptr + i, loss)
        total += loss
        partial_ptr += partials
    if scale_ptr is not None:
        total *= tl.load(scale_ptr)
    tl.store(total_ptr, total)


@triton.jit
def _scaled(grad_ptr, scaled_ptr, block, numel, factor, ACC: tl.constexpr, BLOCK: tl.constexpr):
    offs = block * BLOCK + tl.arange(0, BLOCK)
    mask = offs < numel
    grad = tl.load(grad_ptr + offs, mask=mask, other=0).to(ACC)
    tl.store(scaled_ptr + offs, grad * factor, mask=mask)


@triton.jit
def generator_loss_bwd_kernel(
    grad_total_ptr,  # acc []
    grad_0_ptr,  # the six gradients, None where not asked for
    grad_1_ptr,
    grad_2_ptr,
    grad_3_ptr,
    grad_4_ptr,
    grad_5_ptr,
    scaled_0_ptr,
    scaled_1_ptr,
    scaled_2_ptr,
    scaled_3_ptr,
    scaled_4_ptr,
    scaled_5_ptr,
    numel_0,  # 0 where not asked for
    numel_1,
    numel_2,
    numel_3,
    numel_4,
    numel_5,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Grad * grad_total, of all six in one launch: a program takes one block of one of them."""
    block = tl.program_id(0).to(tl.int64)
    factor = tl.load(grad_total_ptr)
    if grad_0_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_0, BLOCK)):
            _scaled(grad_0_ptr, scaled_0_ptr, block, numel_0, factor, ACC, BLOCK)
        block -= tl.cdiv(numel_0, BLOCK)
    if grad_1_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_1, BLOCK)):
            _scaled(grad_1_ptr, scaled_1_ptr, block, numel_1, factor, ACC, BLOCK)
        block -= tl.cdiv(numel_1, BLOCK)
    if grad_2_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_2, BLOCK)):
            _scaled(grad_2_ptr, scaled_2_ptr, block, numel_2, factor, ACC, BLOCK)
        block -= tl.cdiv(numel_2, BLOCK)
    if grad_3_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_3, BLOCK)):
            _scaled(grad_3_ptr, scaled_3_ptr, block, numel_3, factor, ACC, BLOCK)
        block -= tl.cdiv(numel_3, BLOCK)
    if grad_4_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_4, BLOCK)):
            _scaled(grad_4_ptr, scaled_4_ptr, block, numel_4, factor, ACC, BLOCK)
        block -= tl.cdiv(numel_4, BLOCK)
    if grad_5_ptr is not None:
        if (block >= 0) & (block < tl.cdiv(numel_5, BLOCK)):
            _scaled(grad_5_ptr, scaled_5_ptr, block, numel_5, factor, ACC, BLOCK)


def generator_loss_fwd(
    pred_a: Tensor,
    pred_b: Tensor,
    rec_a: Tensor,
    rec_b: Tensor,
    idt_a: Tensor | None,
    idt_b: Tensor | None,
    real_a: Tensor,
    real_b: Tensor,
    weights: Tensor,
    scale: Tensor | None,
    tanh: bool,
    losses: Tensor,
    total: Tensor,
    grad_pred_a: Tensor | None,
    grad_pred_b: Tensor | None,
    grad_rec_a: Tensor | None,
    grad_rec_b: Tensor | None,
    grad_idt_a: Tensor | None,
    grad_idt_b: Tensor | None,
    workspace: Tensor,
) -> None:
    """Write losses, total and gradients; shapes and dtypes as in csrc/ops/generator_loss.h."""
    sizes = [x.numel() for x in (pred_a, pred_b, rec_a, rec_b)]
    acc = _triton.accumulator(pred_a)
    with _triton.on(pred_a):
        generator_loss_fwd_kernel[(sum(triton.cdiv(size, BLOCK) for size in sizes),)](
            pred_a, pred_b, rec_a, rec_b, idt_a, idt_b, real_a, real_b, weights, scale,
            grad_pred_a, grad_pred_b, grad_rec_a, grad_rec_b, grad_idt_a, grad_idt_b, workspace,
            *sizes, ACC=acc, TANH=tanh, BLOCK=BLOCK, **OPTIONS,
        )  # fmt: skip
        generator_loss_finish_kernel[(1,)](
            workspace, weights, scale, losses, total, *sizes, ACC=acc,
            IDT_A=idt_a is not None, IDT_B=idt_b is not None, BLOCK=BLOCK, PARTIALS=PARTIALS,
        )  # fmt: skip


def generator_loss_bwd(grad_total: Tensor, *tensors: Tensor | None) -> None:
    """Write six gradients times grad_total into the six tensors after them, where there are any."""
    sizes = [0 if gradient is None else gradient.numel() for gradient in tensors[:6]]
    with _triton.on(grad_total):
        generator_loss_bwd_kernel[(sum(triton.cdiv(size, BLOCK) for size in sizes),)](
            grad_total,
            *tensors,
            *sizes,
            ACC=_triton.accumulator(grad_total),
            BLOCK=BLOCK,
            **OPTIONS,
        )
