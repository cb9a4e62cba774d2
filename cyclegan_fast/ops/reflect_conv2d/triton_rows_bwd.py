# SPDX-License-Identifier: MIT
"""The gradient of a padded image: its positions gather from the windows that have read them.

Beside it the sums that the norm's backward takes, see triton_epilogues.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d.triton_beside import sums_of_call
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import leave_sums
from cyclegan_fast.ops.reflect_conv2d.triton_load import derivative


@triton.jit
def reflect_conv2d_rows_bwd_kernel(
    grad_y_ptr,  # [N, out_height, out_width, out_channels]
    y_ptr,  # like grad_y, if TANH
    weight_ptr,  # [out_channels, KH, KW, channels]
    grad_x_ptr,  # [N, height, width, channels]
    other_grad_y_ptr,  # of a second call, if the grid has a second axis of two
    other_y_ptr,
    other_weight_ptr,
    other_grad_x_ptr,
    chunks,  # of an image
    tiles,  # in a chunk
    height,
    width,
    channels,
    out_height,
    out_width,
    out_channels,
    partial_ptr,  # float32 [N, chunks, 2, channels], as all of the norm's if it LEAVES sums
    norm_x_ptr,  # [N, height - 2 NORM_PAD, width - 2 NORM_PAD, channels]
    norm_mean_ptr,  # float32 [N, channels]
    norm_rstd_ptr,  # the same
    norm_weight_ptr,  # float32 [channels], or None
    norm_bias_ptr,  # the same
    norm_skip_ptr,  # like norm_x in any strides, or None
    other_partial_ptr,
    other_norm_x_ptr,
    other_norm_mean_ptr,
    other_norm_rstd_ptr,
    other_norm_weight_ptr,
    other_norm_bias_ptr,
    other_norm_skip_ptr,
    skip_stride_n,
    skip_stride_c,
    skip_stride_h,
    skip_stride_w,
    PAIR: tl.constexpr,
    TANH: tl.constexpr,
    LEAVES: tl.constexpr,  # "sums", or nothing
    NORM_ACT: tl.constexpr,
    NORM_SLOPE: tl.constexpr,
    NORM_PAD: tl.constexpr,  # pixels that the norm has mirrored on each side
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """grad_x, and the sums of each chunk of it."""
    pid = tl.program_id(0)
    # Neighbours read the same rows of the gradient: they come out of the L2 cache.
    groups = channels // BLOCK_C
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    first_c = pid % groups * BLOCK_C
    channel = (first_c + tl.arange(0, BLOCK_C)).to(tl.int64)
    if PAIR:
        grad_y_ptr = of_call(grad_y_ptr, other_grad_y_ptr)
        grad_x_ptr = of_call(grad_x_ptr, other_grad_x_ptr)
        if TANH:
            y_ptr = of_call(y_ptr, other_y_ptr)
        weight_ptr = of_call(weight_ptr, other_weight_ptr)
    first, second = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    for tile in range(tiles):
        offs_p = (chunk * tiles + tile) * BLOCK_P + tl.arange(0, BLOCK_P)
        u, v = offs_p // width, offs_p % width
        mask_p = u < height
        total = _product(
            grad_y_ptr,
            y_ptr,
            weight_ptr,
            n,
            u,
            v,
            first_c,
            channels,
            out_height,
            out_width,
            out_channels,
            TANH,
            KH,
            KW,
            PRECISION,
            BLOCK_P,
            BLOCK_C,
            BLOCK_O,
        )
        target = (n * height * width + offs_p)[:, None] * channels + channel[None, :]
        tl.store(grad_x_ptr + target, total, mask=mask_p[:, None])
        if LEAVES == "sums":
            sums = sums_of_call(
                total,
                u,
                v,
                mask_p,
                channel,
                channel >= 0,
                n,
                (norm_x_ptr, norm_mean_ptr, norm_rstd_ptr),
                (other_norm_x_ptr, other_norm_mean_ptr, other_norm_rstd_ptr),
                (norm_weight_ptr, norm_bias_ptr, norm_skip_ptr),
                (other_norm_weight_ptr, other_norm_bias_ptr, other_norm_skip_ptr),
                (skip_stride_n, skip_stride_c, skip_stride_h, skip_stride_w),
                channels,
                height,
                width,
                NORM_PAD,
                NORM_ACT,
                NORM_SLOPE,
                grad_x_ptr.dtype.element_ty,
            )
            first += sums[0]
            second += sums[1]
    if LEAVES == "sums":
        chunk_ptr = of_call(partial_ptr, other_partial_ptr) + (n * chunks + chunk) * 2 * channels
        leave_sums(first, second, channel, channel >= 0, chunk_ptr, channels)


@triton.jit
def _product(
    grad_y_ptr,
    y_ptr,
    weight_ptr,
    n,
    u,  # [BLOCK_P] row of a position
    v,  # [BLOCK_P] its column
    first_c,
    channels,
    out_height,
    out_width,
    out_channels,
    TANH: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """Sum over taps and channels of the result, [BLOCK_P, BLOCK_C] float32.

    Windows lie densely, and positions at the image's pitch: no box of memory holds a tile's, and so
    there is no descriptor. What is masked comes to shared memory as zeros all the same.
    """
    blocks = out_channels // BLOCK_O
    offs_o = tl.arange(0, BLOCK_O)
    window = (n * out_height + u) * out_width + v
    windows = window[:, None] * out_channels + offs_o[None, :]
    row = KH * KW * channels  # of the weight, for one filter
    filters = offs_o.to(tl.int64)[:, None] * row + (first_c + tl.arange(0, BLOCK_C))[None, :]
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for step in range(KH * KW * blocks):
        tap, o = step // blocks, (step % blocks * BLOCK_O).to(tl.int64)
        i, j = u - tap // KW, v - tap % KW
        there = (i >= 0) & (i < out_height) & (j >= 0) & (j < out_width)
        shift = (tap // KW * out_width + tap % KW).to(tl.int64)
        back = o - shift * out_channels
        own = y_ptr + back if TANH else y_ptr
        a = derivative(grad_y_ptr + back, own, windows, there[:, None], TANH)
        b = tl.load(weight_ptr + (o * row + tap * channels) + filters)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    return total
