# SPDX-License-Identifier: MIT
"""Convolutions from few channels to many in Triton: the columns of a kernel's row are joined.

Of an image of few channels, those that a row of the kernel reads lie side by side: KW * THIN values
from a pixel's first on. They are the inner side of a product, one for each of the kernel's rows:

    y[h, w, o] = sum over r, k of x[h + r, THIN w + k] weight[o, r, k],    k = (s, c)

Forward x is the image, reflected while loading. Backward it is the gradient of a result of few
channels, zero outside, and the kernel is turned.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, reflected, tanh
from cyclegan_fast.ops.reflect_conv2d.triton_beside import sums_of_call
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import _image, _touches
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import leave_moments, leave_sums, with_tile
from cyclegan_fast.ops.reflect_conv2d.triton_load import derivative


@triton.jit
def reflect_conv2d_factored_fwd_kernel(
    x_ptr,  # [N, THIN, height, width], channels side by side; all pairs: of the two calls
    other_x_ptr,
    weight_ptr,  # [out_channels, THIN, KH, KW], either dense layout
    other_weight_ptr,
    bias_ptr,  # [out_channels] or None
    other_bias_ptr,
    y_ptr,  # [N, out_channels, out_height, out_width], either dense layout
    other_y_ptr,
    partial_ptr,  # float32 [N, chunks, 3, out_channels] or None
    other_partial_ptr,
    height,
    width,
    out_channels,
    out_height,
    out_width,
    y_stride_p,  # from pixel to pixel
    y_stride_c,
    weight_stride_c,
    weight_stride_t,  # from tap to tap
    chunks,  # of an image
    count,  # tiles in each but the last
    TANH: tl.constexpr,
    THIN: tl.constexpr,
    PAD: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_O: tl.constexpr,
    SPAN: tl.constexpr,  # at least KW * THIN
):
    """A chunk's tiles of BLOCK_O channels, one after another, and the moments of all."""
    groups = tl.cdiv(out_channels, BLOCK_O)
    across = tl.cdiv(out_width, BLOCK_W)
    pid = tl.program_id(0)
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    image_ptr = of_call(x_ptr, other_x_ptr) + n * height * width * THIN
    weight_ptr = of_call(weight_ptr, other_weight_ptr)
    y_ptr = of_call(y_ptr, other_y_ptr) + n * out_channels * out_height * out_width
    channel = (pid % groups * BLOCK_O + tl.arange(0, BLOCK_O)).to(tl.int64)
    mask_o = channel < out_channels
    offs_k = tl.arange(0, SPAN)
    mask_k = offs_k < KW * THIN
    filters = (offs_k // THIN * weight_stride_t + offs_k % THIN * weight_stride_c)[:, None]
    filters = filters + (channel * (THIN * KH * KW))[None, :]
    in_tile = tl.arange(0, BLOCK_H * BLOCK_W)
    origin = tl.zeros((BLOCK_O,), tl.float32)
    mean, m2, number = origin, origin, 0.0
    end = tl.minimum((chunk + 1) * count, across * tl.cdiv(out_height, BLOCK_H))
    for tile in range(chunk * count, end):
        h = tile // across * BLOCK_H + in_tile // BLOCK_W
        w = tile % across * BLOCK_W + in_tile % BLOCK_W
        mask_p = (h < out_height) & (w < out_width)
        # Where a pixel's values are in their rows is the same for all rows: it is found once.
        column = reflected(w[:, None] + (offs_k // THIN)[None, :], PAD, width)
        column = column * THIN + (offs_k % THIN)[None, :]
        mask = mask_p[:, None] & mask_k[None, :]
        total = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_O), tl.float32)
        for r in range(KH):
            row = reflected(h + r, PAD, height).to(tl.int64) * (width * THIN)
            a = tl.load(image_ptr + row[:, None] + column, mask=mask, other=0)
            source = filters + r * KW * weight_stride_t
            b = tl.load(weight_ptr + source, mask=mask_k[:, None] & mask_o[None, :], other=0)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        if bias_ptr is not None:
            bias = tl.load(of_call(bias_ptr, other_bias_ptr) + channel, mask=mask_o, other=0)
            total += bias.to(tl.float32)[None, :]
        if TANH:
            total = tanh(total, tl.float32)
        target = (h.to(tl.int64) * out_width + w)[:, None] * y_stride_p
        target += (channel * y_stride_c)[None, :]
        tl.store(y_ptr + target, total, mask=mask_p[:, None] & mask_o[None, :])
        if partial_ptr is not None:
            origin, mean, m2, number = with_tile(
                origin, mean, m2, number, total, mask_p, mask_o, y_ptr.dtype.element_ty
            )
    if partial_ptr is not None:
        partial_ptr = of_call(partial_ptr, other_partial_ptr)
        partial_ptr += (n * chunks + chunk) * 3 * out_channels
        leave_moments(origin, mean, m2, channel, mask_o, partial_ptr, out_channels)


@triton.jit
def reflect_conv2d_factored_bwd_kernel(
    grad_y_ptr,  # [N, THIN, out_height, out_width], channels side by side
    other_grad_y_ptr,
    y_ptr,  # like grad_y, if TANH
    other_y_ptr,
    weight_ptr,  # [THIN, channels, KH, KW], either dense layout
    other_weight_ptr,
    grad_x_ptr,  # [N, channels, height, width], channels side by side
    other_grad_x_ptr,
    channels,
    height,
    width,
    out_height,
    out_width,
    weight_stride_c,
    weight_stride_t,
    chunks,  # of an image
    count,  # tiles in each but the last
    # Of norms whose sums are wanted, see beside_norm.NormOfInput; else None.
    partial_ptr,
    other_partial_ptr,
    norm_x_ptr,
    other_norm_x_ptr,
    norm_mean_ptr,
    other_norm_mean_ptr,
    norm_rstd_ptr,
    other_norm_rstd_ptr,
    norm_weight_ptr,
    other_norm_weight_ptr,
    norm_bias_ptr,
    other_norm_bias_ptr,
    norm_skip_ptr,
    other_norm_skip_ptr,
    skip_stride_n,
    skip_stride_c,
    skip_stride_h,
    skip_stride_w,
    LEAVES: tl.constexpr,  # "sums" or ""
    NORM_PAD: tl.constexpr,
    NORM_ACT: tl.constexpr,
    NORM_SLOPE: tl.constexpr,
    TANH: tl.constexpr,
    THIN: tl.constexpr,
    PAD: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    SPAN: tl.constexpr,
):
    """A chunk's tiles of BLOCK_C channels, one after another, and the norm's sums over all."""
    groups = tl.cdiv(channels, BLOCK_C)
    across = tl.cdiv(width, BLOCK_W)
    pid = tl.program_id(0)
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    pixels = n * out_height * out_width * THIN
    grad_y_ptr = of_call(grad_y_ptr, other_grad_y_ptr) + pixels
    y_ptr = of_call(y_ptr, other_y_ptr) + pixels
    weight_ptr = of_call(weight_ptr, other_weight_ptr)
    grad_x_ptr = of_call(grad_x_ptr, other_grad_x_ptr) + n * channels * height * width
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    offs_k = tl.arange(0, SPAN)
    mask_k = offs_k < KW * THIN
    filters = (KH * KW - 1 - offs_k // THIN).to(tl.int64) * weight_stride_t
    filters = (filters + offs_k % THIN * (channels * KH * KW))[:, None]
    filters = filters + (channel * weight_stride_c)[None, :]
    in_tile = tl.arange(0, BLOCK_H * BLOCK_W)
    sum_dz = tl.zeros((BLOCK_C,), tl.float32)
    sum_dz_xhat = tl.zeros((BLOCK_C,), tl.float32)
    end = tl.minimum((chunk + 1) * count, across * tl.cdiv(height, BLOCK_H))
    for tile in range(chunk * count, end):
        top, left = tile // across * BLOCK_H, tile % across * BLOCK_W
        h, w = top + in_tile // BLOCK_W, left + in_tile % BLOCK_W
        mask_p = (h < height) & (w < width)
        total = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_C), tl.float32)
        for image in range(9 if PAD > 0 else 1):
            side_h, side_w = image // 3, image % 3
            any_h = _touches(side_h, top, BLOCK_H, height, PAD)
            any_w = _touches(side_w, left, BLOCK_W, width, PAD)
            padded_h, there_h = _image(side_h, h, height, PAD)
            padded_w, there_w = _image(side_w, w, width, PAD)
            column = (padded_w - (KW - 1))[:, None] + (offs_k // THIN)[None, :]
            mask = (mask_p & there_h & there_w)[:, None] & mask_k[None, :]
            mask = mask & (column >= 0) & (column < out_width)
            column = column * THIN + (offs_k % THIN)[None, :]
            for r in range(tl.where(any_h & any_w, KH, 0)):
                row = padded_h - (KH - 1) + r
                there = mask & ((row >= 0) & (row < out_height))[:, None]
                source = (row.to(tl.int64) * (out_width * THIN))[:, None] + column
                a = derivative(grad_y_ptr, y_ptr, source, there, TANH)
                source = filters - r * KW * weight_stride_t
                b = tl.load(weight_ptr + source, mask=mask_k[:, None] & mask_c[None, :], other=0)
                total = tl.dot(a, b, total, input_precision=PRECISION)
        target = (h.to(tl.int64) * width + w)[:, None] * channels + channel[None, :]
        tl.store(grad_x_ptr + target, total, mask=mask_p[:, None] & mask_c[None, :])
        if LEAVES == "sums":
            sums = sums_of_call(
                total,
                h,
                w,
                mask_p,
                channel,
                mask_c,
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
            sum_dz += sums[0]
            sum_dz_xhat += sums[1]
    if LEAVES == "sums":
        partial_ptr = of_call(partial_ptr, other_partial_ptr)
        partial_ptr += (n * chunks + chunk) * 2 * channels
        leave_sums(sum_dz, sum_dz_xhat, channel, mask_c, partial_ptr, channels)
