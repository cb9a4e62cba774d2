# SPDX-License-Identifier: MIT
"""reflect_conv2d's forward kernel in Triton: an implicit GEMM that reflects while it loads.

A program makes BLOCK_P pixels of BLOCK_O channels of one image, and `each` such tiles one after the
other. The sum runs over the kernel's taps and the input's channels; a tap is a shift of the pixels,
reflected where it leaves the image, or zero there. A norm may be applied to the input while it is
loaded.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, reflected, tanh
from cyclegan_fast.ops.reflect_conv2d.triton_beside import sums_of_call
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import leave_moments, leave_sums, with_tile
from cyclegan_fast.ops.reflect_conv2d.triton_load import load_tile


@triton.jit
def reflect_conv2d_fwd_kernel(
    x_ptr,  # [N, channels, height, width], either dense layout; a norm may be applied to it
    weight_ptr,  # [out_channels, channels, KH, KW], either dense layout
    bias_ptr,  # [out_channels] or None
    y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
    other_x_ptr,  # from here on the second call's
    other_weight_ptr,
    other_bias_ptr,
    other_y_ptr,
    channels,
    height,
    width,
    out_channels,
    out_height,
    out_width,
    x_stride_p,  # from pixel to pixel
    x_stride_c,
    y_stride_p,
    y_stride_c,
    weight_stride_c,
    weight_stride_t,  # from tap to tap
    chunks,  # of an image
    each,  # tiles of a chunk
    partial_ptr,  # float32 [N, chunks, 2 or 3, out_channels] or None: left for the norm
    other_partial_ptr,
    norm_x_ptr,  # what sums are taken of, see beside_norm.NormOfInput; or None
    norm_mean_ptr,
    norm_rstd_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    norm_skip_ptr,
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
    load_beside_ptr,  # like x, or None: how x is loaded, see triton_load
    load_mean_ptr,
    load_rstd_ptr,
    load_weight_ptr,
    load_bias_ptr,
    load_sums_ptr,
    other_load_beside_ptr,
    other_load_mean_ptr,
    other_load_rstd_ptr,
    other_load_weight_ptr,
    other_load_bias_ptr,
    other_load_sums_ptr,
    LEAVES: tl.constexpr,  # nothing, "moments", "sums" or "masked"
    NORM_PAD: tl.constexpr,
    NORM_ACT: tl.constexpr,
    NORM_SLOPE: tl.constexpr,
    LOAD_FORM: tl.constexpr,
    LOAD_ACT: tl.constexpr,
    LOAD_SLOPE: tl.constexpr,
    TANH: tl.constexpr,
    PAD: tl.constexpr,
    ZEROS: tl.constexpr,  # in the place of reflection
    STRIDE: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Y = act(weight * padded x + bias)."""
    pixels = out_height * out_width
    groups = tl.cdiv(out_channels, BLOCK_O)
    pid = tl.program_id(0)
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    offs_o = pid % groups * BLOCK_O + tl.arange(0, BLOCK_O)
    channel, mask_o = offs_o.to(tl.int64), offs_o < out_channels
    x_ptr = of_call(x_ptr, other_x_ptr) + n * channels * height * width
    weight_ptr = of_call(weight_ptr, other_weight_ptr)
    y_ptr = of_call(y_ptr, other_y_ptr) + n * out_channels * pixels
    if bias_ptr is not None:
        bias_ptr = of_call(bias_ptr, other_bias_ptr)
    if load_beside_ptr is not None:
        load_beside_ptr = of_call(load_beside_ptr, other_load_beside_ptr)
        load_beside_ptr += n * channels * height * width
    filters = channel[None, :] * (channels * KH * KW)
    blocks = tl.cdiv(channels, BLOCK_C)
    first, second = tl.zeros((BLOCK_O,), tl.float32), tl.zeros((BLOCK_O,), tl.float32)
    origin, count = tl.zeros((BLOCK_O,), tl.float32), 0.0
    for k in range(each):
        offs_p = (chunk * each + k) * BLOCK_P + tl.arange(0, BLOCK_P)
        mask_p = offs_p < pixels
        row, column = offs_p // out_width * STRIDE, offs_p % out_width * STRIDE
        total = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
        for step in range(KH * KW * blocks):
            tap = step // blocks
            offs_c = step % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
            mask_c = offs_c < channels
            h, w, there = source_pixel(
                row + tap // KW, column + tap % KW, height, width, PAD, ZEROS
            )
            source = (h * width + w).to(tl.int64)[:, None] * x_stride_p
            source += offs_c.to(tl.int64)[None, :] * x_stride_c
            mask = (mask_p & there)[:, None] & mask_c[None, :]
            a = load_tile(
                x_ptr,
                load_beside_ptr,
                source,
                mask,
                n,
                offs_c,
                mask_c,
                channels,
                height * width,
                0,
                (load_mean_ptr, load_rstd_ptr, load_weight_ptr, load_bias_ptr, load_sums_ptr),
                (
                    other_load_mean_ptr,
                    other_load_rstd_ptr,
                    other_load_weight_ptr,
                    other_load_bias_ptr,
                    other_load_sums_ptr,
                ),
                LOAD_FORM,
                LOAD_ACT,
                LOAD_SLOPE,
            )
            source = filters + offs_c.to(tl.int64)[:, None] * weight_stride_c
            source += tap * weight_stride_t
            b = tl.load(weight_ptr + source, mask=mask_c[:, None] & mask_o[None, :], other=0)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        if bias_ptr is not None:
            total += tl.load(bias_ptr + offs_o, mask=mask_o, other=0).to(tl.float32)[None, :]
        if TANH:
            total = tanh(total, tl.float32)
        target = offs_p.to(tl.int64)[:, None] * y_stride_p + (channel * y_stride_c)[None, :]
        if LEAVES != "masked":
            tl.store(y_ptr + target, total, mask=mask_p[:, None] & mask_o[None, :])
        if LEAVES == "moments":
            origin, first, second, count = with_tile(
                origin, first, second, count, total, mask_p, mask_o, y_ptr.dtype.element_ty
            )
        if LEAVES == "sums" or LEAVES == "masked":
            sums = sums_of_call(
                total,
                offs_p // out_width,
                offs_p % out_width,
                mask_p,
                channel,
                mask_o,
                n,
                (norm_x_ptr, norm_mean_ptr, norm_rstd_ptr),
                (other_norm_x_ptr, other_norm_mean_ptr, other_norm_rstd_ptr),
                (norm_weight_ptr, norm_bias_ptr, norm_skip_ptr),
                (other_norm_weight_ptr, other_norm_bias_ptr, other_norm_skip_ptr),
                (skip_stride_n, skip_stride_c, skip_stride_h, skip_stride_w),
                out_channels,
                out_height,
                out_width,
                NORM_PAD,
                NORM_ACT,
                NORM_SLOPE,
                y_ptr.dtype.element_ty,
                LEAVES == "masked",
            )
            first += sums[0]
            second += sums[1]
            if LEAVES == "masked":
                tl.store(y_ptr + target, sums[2], mask=mask_p[:, None] & mask_o[None, :])
    if LEAVES == "moments":
        partial_ptr = (
            of_call(partial_ptr, other_partial_ptr) + (n * chunks + chunk) * 3 * out_channels
        )
        leave_moments(origin, first, second, channel, mask_o, partial_ptr, out_channels)
    if LEAVES == "sums" or LEAVES == "masked":
        partial_ptr = (
            of_call(partial_ptr, other_partial_ptr) + (n * chunks + chunk) * 2 * out_channels
        )
        leave_sums(first, second, channel, mask_o, partial_ptr, out_channels)


@triton.jit
def source_pixel(i, j, height, width, PAD: tl.constexpr, ZEROS: tl.constexpr):
    """Row and column of x that a padded image shows at (i, j), and whether it shows any there."""
    if ZEROS:
        h, w = i - PAD, j - PAD
        there = (h >= 0) & (h < height) & (w >= 0) & (w < width)
    else:
        h, w = reflected(i, PAD, height), reflected(j, PAD, width)
        there = tl.full(h.shape, True, tl.int1)
    return h, w, there
