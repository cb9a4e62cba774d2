# SPDX-License-Identifier: MIT
"""augment in Triton: a program makes a stretch of values of one picture of the batch."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.augment.packed import TAP_BITS

# A value a thread: its taps are a chain of reads, and other threads hide the wait.
BLOCK = 256
_COLUMNS = 7


@triton.jit
def _clip(total, BITS: tl.constexpr):
    return tl.minimum(tl.maximum(total >> BITS, 0), 255)


@triton.jit
def augment_fwd_kernel(
    levels_ptr,  # uint8, pictures [height, width, channels] one after the other
    table_ptr,  # int64 [pictures, 7]
    taps_ptr,  # int32
    picks_ptr,  # int64 [n, 4]
    out_ptr,  # [n, channels, out_h, out_w]
    pictures,
    channels,
    out_h,
    out_w,
    blocks,  # programs of one picture
    CHANNELS_LAST: tl.constexpr,
    BITS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Filter the rows that an output row reads, then that column, as Pillow rounds them."""
    program = tl.program_id(0).to(tl.int64)
    i = program // blocks
    values = channels * out_h * out_w
    offs = (program % blocks).to(tl.int32) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < values
    if CHANNELS_LAST:
        pixel = offs // channels
        channel = offs % channels
    else:
        pixel = offs % (out_h * out_w)
        channel = offs // (out_h * out_w)
    row = pixel // out_w
    column = pixel % out_w

    picks_ptr += i * 4
    number = tl.minimum(tl.maximum(tl.load(picks_ptr), 0), pictures - 1)
    table_ptr += number * COLUMNS
    height = tl.load(table_ptr + 1)
    width = tl.load(table_ptr + 2)
    top = tl.maximum(tl.minimum(tl.load(picks_ptr + 1), tl.load(table_ptr + 3) - out_h), 0)
    left = tl.maximum(tl.minimum(tl.load(picks_ptr + 2), tl.load(table_ptr + 4) - out_w), 0)
    column = tl.where(tl.load(picks_ptr + 3) != 0, out_w - 1 - column, column)

    rows_ptr = taps_ptr + tl.load(table_ptr + 5)
    columns_ptr = taps_ptr + tl.load(table_ptr + 6)
    n_rows = tl.load(rows_ptr)
    n_columns = tl.load(columns_ptr)
    rows_ptr = rows_ptr + 1 + (top + row) * (n_rows + 1)
    columns_ptr = columns_ptr + 1 + (left + column) * (n_columns + 1)
    first_row = tl.load(rows_ptr, mask=mask, other=0)
    first_column = tl.load(columns_ptr, mask=mask, other=0)
    levels_ptr = levels_ptr + tl.load(table_ptr) + channel

    total = tl.full((BLOCK,), 1 << (BITS - 1), tl.int32)
    for t in range(n_rows):
        # Weights beyond the last row or column are zero, but what they weigh must exist.
        line_ptr = levels_ptr + tl.minimum(first_row + t, height - 1) * width * channels
        line = tl.full((BLOCK,), 1 << (BITS - 1), tl.int32)
        for k in range(n_columns):
            at = tl.minimum(first_column + k, width - 1) * channels
            level = tl.load(line_ptr + at, mask=mask, other=0).to(tl.int32)
            line += tl.load(columns_ptr + 1 + k, mask=mask, other=0) * level
        total += tl.load(rows_ptr + 1 + t, mask=mask, other=0) * _clip(line, BITS)
    # Rounded as IEEE says: Triton's own division is not.
    share = tl.div_rn(_clip(total, BITS).to(tl.float32), tl.full((BLOCK,), 255.0, tl.float32))
    tl.store(out_ptr + i * values + offs, (share - 0.5) * 2, mask=mask)


def augment_fwd(levels: Tensor, table: Tensor, taps: Tensor, picks: Tensor, out: Tensor) -> None:
    """Write out; shapes as in csrc/ops/augment.h."""
    n, channels, height, width = out.shape
    values = channels * height * width
    if values >= 1 << 31:
        raise ValueError(
            f"augment: size must be of fewer than 2**31 values per picture, got {list(out.shape)}"
        )
    blocks = triton.cdiv(values, BLOCK)
    with _triton.on(out):
        augment_fwd_kernel[(n * blocks,)](
            levels,
            table,
            taps,
            picks,
            out,
            len(table),
            channels,
            height,
            width,
            blocks,
            CHANNELS_LAST=_triton.is_channels_last(out),
            BITS=TAP_BITS,
            COLUMNS=_COLUMNS,
            BLOCK=BLOCK,
        )
