# SPDX-License-Identifier: MIT
"""pool_exchange in Triton: a program takes the same values of every picture of a batch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton

BLOCK = 1024


@triton.jit
def pool_exchange_fwd_kernel(
    rows_ptr,  # [size + 1, elements]
    pictures_ptr,  # [n, elements]
    take_ptr,  # int64 [n]
    put_ptr,  # int64 [n]
    shown_ptr,  # [n, elements]
    n,
    size,
    elements,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Read all that is to be shown, then write what is to be kept."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < elements
    for i in range(n):
        take = tl.minimum(tl.maximum(tl.load(take_ptr + i), 0), size + n - 1)
        picture = tl.load(
            pictures_ptr + tl.maximum(take - size, 0) * elements + offs,
            mask=mask & (take >= size),
            other=0,
        )
        row = tl.load(
            rows_ptr + tl.minimum(take, size) * elements + offs, mask=mask & (take < size), other=0
        )
        at = tl.cast(i, tl.int64) * elements
        tl.store(shown_ptr + at + offs, tl.where(take < size, row, picture), mask=mask)
    # Another thread may write what one has read: they need not share elements alike.
    tl.debug_barrier()
    for i in range(n):
        put = tl.load(put_ptr + i)
        at = tl.cast(i, tl.int64) * elements
        value = tl.load(pictures_ptr + at + offs, mask=mask, other=0).to(ACC)
        # A picture of an overflowing step must not come back for ever; tanh ends at 1.
        ended = tl.where(value > 0, 1.0, tl.where(value < 0, -1.0, 0.0)).to(ACC)
        value = tl.where(value - value == 0, value, ended)
        keep = mask & (put >= 0) & (put < size)
        tl.store(rows_ptr + tl.maximum(put, 0) * elements + offs, value, mask=keep)


def pool_exchange_fwd(
    rows: Tensor, pictures: Tensor, take: Tensor, put: Tensor, shown: Tensor
) -> None:
    """Write shown, and the rows that keep a picture; shapes as in csrc/ops/pool_exchange.h."""
    elements = pictures.numel() // len(pictures)
    with _triton.on(rows):
        pool_exchange_fwd_kernel[(triton.cdiv(elements, BLOCK),)](
            rows,
            pictures,
            take,
            put,
            shown,
            len(pictures),
            len(rows) - 1,
            elements,
            ACC=_triton.accumulator(rows),
            BLOCK=BLOCK,
        )
