# SPDX-License-Identifier: MIT
"""reflect_conv2d's forward kernel over rows: a padded image, seen as one matrix.

Positions of the result are counted at the pitch of the image, so a tap is the same matrix some rows
further down, and a tile's operand is a rectangle of memory. The last KW - 1 positions of each row
are no pixels and are dropped.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, tanh
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import leave_moments, with_tile


@triton.jit
def reflect_conv2d_rows_fwd_kernel(
    x,  # [N, height, width, channels]; a descriptor of [N height width, channels] if DESCRIBED
    weight,  # [out_channels, KH, KW, channels]; of [out_channels, KH KW channels]
    bias_ptr,  # [out_channels], or None
    y_ptr,  # [N, out_height, out_width, out_channels]
    moments_ptr,  # float32 [N, chunks, 3, out_channels], or None, see beside_norm.Moments
    other_x,  # of a second call, if the grid has a second axis of two
    other_weight,
    other_bias_ptr,
    other_y_ptr,
    other_moments_ptr,
    chunks,  # of an image
    tiles,  # in a chunk
    height,
    width,
    channels,
    out_height,
    out_width,
    out_channels,
    PAIR: tl.constexpr,
    DESCRIBED: tl.constexpr,
    TANH: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Y = act(weight * x + bias), and the moments of each chunk of it."""
    pid = tl.program_id(0)
    # Neighbours read the same rows of the image: they come out of the L2 cache.
    groups = out_channels // BLOCK_O
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    first_o = pid % groups * BLOCK_O
    channel = first_o + tl.arange(0, BLOCK_O)
    steps = KH * KW * (channels // BLOCK_C)
    other_steps = 0
    if PAIR:
        y_ptr = of_call(y_ptr, other_y_ptr)
        if DESCRIBED:
            other_steps = of_call(0, steps)
        else:
            x, weight = of_call(x, other_x), of_call(weight, other_weight)
    origin = tl.zeros((BLOCK_O,), tl.float32)
    mean, m2 = tl.zeros_like(origin), tl.zeros_like(origin)
    count = 0.0
    for tile in range(tiles):
        first = (chunk * tiles + tile) * BLOCK_P
        offs_p = first + tl.arange(0, BLOCK_P)
        i, j = offs_p // width, offs_p % width
        mask_p = (i < out_height) & (j < out_width)
        total = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
        total = _product(
            total,
            x,
            weight,
            n * height * width + first,
            mask_p,
            first_o,
            steps - other_steps,
            width,
            channels,
            DESCRIBED,
            KH,
            KW,
            PRECISION,
            BLOCK_P,
            BLOCK_O,
            BLOCK_C,
        )
        if PAIR and DESCRIBED:
            # Descriptors are no values to choose from: a loop for each call, of which one runs.
            total = _product(
                total,
                other_x,
                other_weight,
                n * height * width + first,
                mask_p,
                first_o,
                other_steps,
                width,
                channels,
                DESCRIBED,
                KH,
                KW,
                PRECISION,
                BLOCK_P,
                BLOCK_O,
                BLOCK_C,
            )
        if bias_ptr is not None:
            bias = tl.load(of_call(bias_ptr, other_bias_ptr) + channel)
            total += bias.to(tl.float32)[None, :]
        if TANH:
            total = tanh(total, tl.float32)
        target = ((n * out_height + i) * out_width + j)[:, None] * out_channels + channel[None, :]
        tl.store(y_ptr + target, total, mask=mask_p[:, None])
        if moments_ptr is not None:
            origin, mean, m2, count = with_tile(
                origin, mean, m2, count, total, mask_p, channel >= 0, y_ptr.dtype.element_ty
            )
    if moments_ptr is not None:
        chunk_ptr = of_call(moments_ptr, other_moments_ptr)
        chunk_ptr += (n * chunks + chunk) * 3 * out_channels
        leave_moments(origin, mean, m2, channel, channel >= 0, chunk_ptr, out_channels)


@triton.jit
def _product(
    total,  # [BLOCK_P, BLOCK_O] float32, to which the product is added
    x,
    weight,
    row,  # int64, the tile's first of the matrix
    mask_p,  # [BLOCK_P]
    first_o,
    steps,
    width,
    channels,
    DESCRIBED: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum over taps and channels."""
    blocks = channels // BLOCK_C
    if not DESCRIBED:
        offs_p = row + tl.arange(0, BLOCK_P)
        offs_o = (first_o + tl.arange(0, BLOCK_O)).to(tl.int64)
        offs_c = tl.arange(0, BLOCK_C)
        pixels = offs_p[:, None] * channels + offs_c[None, :]
        filters = offs_o[None, :] * (KH * KW * channels) + offs_c[:, None]
    for step in range(steps):
        tap, c = step // blocks, step % blocks * BLOCK_C
        shift = tap // KW * width + tap % KW
        if DESCRIBED:
            a = x.load([row.to(tl.int32) + shift, c])
            b = weight.load([first_o, tap * channels + c]).T
        else:
            source = x + (shift.to(tl.int64) * channels + c)
            a = tl.load(source + pixels, mask=mask_p[:, None], other=0)
            b = tl.load(weight + (tap * channels + c) + filters)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total
