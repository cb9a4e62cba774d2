# SPDX-License-Identifier: MIT
"""adam in Triton: one small launch counts the steps, one updates every tensor of an optimiser.

The second finds its tensors through a table of addresses on the device: which tensor a program
works on is data, so that a hundred tensors of any sizes are one launch.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.adam.tables import BLOCK

COUNTED = 128  # tensors of a program that counts
HALVES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def adam_count_kernel(
    rows_ptr,  # int64 [tensors, 7], see tables.py
    factor_ptr,  # float32 [2, tensors]: step size, and what the root of the moment is divided by
    lr_ptr,  # float32 []
    found_inf_ptr,  # float32 [] or None
    tensors,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count a step that is made, and take the bias corrections, in float64: 1 - beta^k cancels."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < tensors
    step_ptr = tl.load(rows_ptr + offs * 7 + 5, mask=mask, other=0).to(tl.pointer_type(tl.float32))
    step = tl.load(step_ptr, mask=mask, other=0) + 1
    if found_inf_ptr is not None:
        # A step that is skipped is none; the launch after this one then writes nothing.
        step -= tl.where(tl.load(found_inf_ptr) != 0, 1.0, 0.0)
    tl.store(step_ptr, step, mask=mask)
    # Of a first step that is skipped nobody reads the factors, and zero has no quotient.
    made = tl.maximum(step, 1).to(tl.float64)
    first = 1 - tl.exp(made * tl.full((), LOG_BETA1, tl.float64))
    second = 1 - tl.exp(made * tl.full((), LOG_BETA2, tl.float64))
    lr = tl.load(lr_ptr).to(tl.float64)
    tl.store(factor_ptr + offs, (lr / first).to(tl.float32), mask=mask)
    tl.store(factor_ptr + tensors + offs, tl.sqrt(second).to(tl.float32), mask=mask)


@triton.jit
def adam_update_kernel(
    rows_ptr,  # int64 [tensors, 7], see tables.py
    programs_ptr,  # int64 [programs, 2]
    factor_ptr,  # float32 [2, tensors]
    found_inf_ptr,  # float32 [] or None
    tensors,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    REST1: tl.constexpr,  # 1 - BETA1
    REST2: tl.constexpr,
    EPS: tl.constexpr,
    HALF: tl.constexpr,  # dtype of the 16-bit copies, None for none
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update one block of one tensor, and write its 16-bit copy."""
    if found_inf_ptr is not None:
        if tl.load(found_inf_ptr) != 0:
            return
    program_ptr = programs_ptr + tl.program_id(0).to(tl.int64) * 2
    t = tl.load(program_ptr)
    first = tl.multiple_of(tl.load(program_ptr + 1), BLOCK)
    left = tl.load(rows_ptr + t * 7 + 6) - first
    # Where nothing is masked, memory is read and written in whole vectors.
    if left >= BLOCK:
        _update_block(
            rows_ptr + t * 7, first, None, tl.load(factor_ptr + t),
            tl.load(factor_ptr + tensors + t), BETA1, BETA2, REST1, REST2, EPS, HALF, ALIGNED, BLOCK
        )  # fmt: skip
    else:
        _update_block(
            rows_ptr + t * 7, first, left, tl.load(factor_ptr + t),
            tl.load(factor_ptr + tensors + t), BETA1, BETA2, REST1, REST2, EPS, HALF, ALIGNED, BLOCK
        )  # fmt: skip


@triton.jit
def _update_block(
    row_ptr,  # of the tensor, in the table
    first,  # its element that the block begins with
    left,  # elements from there on, None where they fill the block
    step_size,
    root,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    REST1: tl.constexpr,
    REST2: tl.constexpr,
    EPS: tl.constexpr,
    HALF: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offs = tl.arange(0, BLOCK)
    mask = None
    if left is not None:
        mask = offs < left
    param_ptr = _pointer(row_ptr, first, tl.float32, ALIGNED) + offs
    grad_ptr = _pointer(row_ptr + 1, first, tl.float32, ALIGNED) + offs
    avg_ptr = _pointer(row_ptr + 2, first, tl.float32, ALIGNED) + offs
    avg_sq_ptr = _pointer(row_ptr + 3, first, tl.float32, ALIGNED) + offs
    grad = tl.load(grad_ptr, mask=mask)
    avg = tl.load(avg_ptr, mask=mask) * BETA1 + grad * REST1
    avg_sq = tl.load(avg_sq_ptr, mask=mask) * BETA2 + grad * grad * REST2
    denominator = tl.div_rn(tl.sqrt_rn(avg_sq), root) + EPS
    param = tl.load(param_ptr, mask=mask) - step_size * tl.div_rn(avg, denominator)
    tl.store(avg_ptr, avg, mask=mask)
    tl.store(avg_sq_ptr, avg_sq, mask=mask)
    tl.store(param_ptr, param, mask=mask)
    if HALF is not None:
        if tl.load(row_ptr + 4) != 0:
            half_ptr = _pointer(row_ptr + 4, first, HALF, ALIGNED) + offs
            tl.store(half_ptr, param.to(HALF), mask=mask)


@triton.jit
def _pointer(address_ptr, first, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Where a block begins in a tensor; told that it is aligned, the compiler takes vectors."""
    pointer = tl.load(address_ptr).to(tl.pointer_type(DTYPE)) + first
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


def adam_update(
    rows: Tensor,  # int64 [tensors, 7], see tables.py
    programs: Tensor,  # int64 [programs, 2]
    aligned: bool,
    factors: Tensor,  # float32 [2, tensors]
    lr: Tensor,
    found_inf: Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
    half: torch.dtype | None,
) -> None:
    """Update what the table holds the addresses of; the tensors must outlive the launch."""
    tensors = len(rows)
    with _triton.on(factors):
        adam_count_kernel[(triton.cdiv(tensors, COUNTED),)](
            rows,
            factors,
            lr,
            found_inf,
            tensors,
            LOG_BETA1=math.log(beta1) if beta1 else -math.inf,
            LOG_BETA2=math.log(beta2) if beta2 else -math.inf,
            BLOCK=COUNTED,
        )
        if len(programs) == 0:  # every tensor is empty
            return
        adam_update_kernel[(len(programs),)](
            rows,
            programs,
            factors,
            found_inf,
            tensors,
            BETA1=beta1,
            BETA2=beta2,
            REST1=1 - beta1,
            REST2=1 - beta2,
            EPS=eps,
            HALF=None if half is None else HALVES[half],
            ALIGNED=aligned,
            BLOCK=BLOCK,
        )
