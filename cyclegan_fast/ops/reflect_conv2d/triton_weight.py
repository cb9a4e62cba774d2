# SPDX-License-Identifier: MIT
"""reflect_conv2d's gradient of the weight in Triton: a product over all pixels, and two stages.

The pixels are cut into splits, whose partial sums reflect_conv2d_sum_kernel adds in order; the
gradient of the bias is summed beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import derivative
from cyclegan_fast.ops.reflect_conv2d.triton_fwd import source_pixel


@triton.jit
def reflect_conv2d_weight_kernel(
    grad_y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
    y_ptr,  # like grad_y, if TANH
    x_ptr,  # [N, channels, height, width], either dense layout
    partial_ptr,  # [splits, weight and bias]: the weight's elements in its layout, then the bias's
    other_grad_y_ptr,  # from here on the second call's
    other_y_ptr,
    other_x_ptr,
    other_partial_ptr,
    batch,
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
    chunk,  # pixels of a split, a multiple of BLOCK_P
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
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
    """One split's sum for BLOCK_O filters, one tap and BLOCK_C channels; and for the bias."""
    grad_y_ptr, y_ptr = of_call(grad_y_ptr, other_grad_y_ptr), of_call(y_ptr, other_y_ptr)
    x_ptr, partial_ptr = of_call(x_ptr, other_x_ptr), of_call(partial_ptr, other_partial_ptr)
    pixels = out_height * out_width
    groups_o, groups_c = tl.cdiv(out_channels, BLOCK_O), tl.cdiv(channels, BLOCK_C)
    pid = tl.program_id(0)
    group_o, rest = pid % groups_o, pid // groups_o
    if WEIGHT:
        group_c, tap = rest % groups_c, rest // groups_c % (KH * KW)
        split = rest // groups_c // (KH * KW)
    else:
        group_c, tap, split = 0, 0, rest
    offs_o = group_o * BLOCK_O + tl.arange(0, BLOCK_O)
    offs_c = group_c * BLOCK_C + tl.arange(0, BLOCK_C)
    mask_o, mask_c = offs_o < out_channels, offs_c < channels
    total = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    bias = tl.zeros((BLOCK_O,), tl.float32)
    end = tl.minimum((split + 1) * chunk, batch * pixels)
    for first in range(split * chunk, end, BLOCK_P):
        offs = first + tl.arange(0, BLOCK_P)
        mask_p = offs < end
        n, p = (offs // pixels).to(tl.int64), offs % pixels
        source = n[:, None] * out_channels * pixels + p.to(tl.int64)[:, None] * y_stride_p
        source += offs_o.to(tl.int64)[None, :] * y_stride_c
        g = derivative(grad_y_ptr, y_ptr, source, mask_p[:, None] & mask_o[None, :], TANH)
        if BIAS:
            bias += tl.sum(g.to(tl.float32), 0)
        if WEIGHT:
            row, column = p // out_width * STRIDE, p % out_width * STRIDE
            h, w, there = source_pixel(
                row + tap // KW, column + tap % KW, height, width, PAD, ZEROS
            )
            source = n * channels * height * width + (h * width + w).to(tl.int64) * x_stride_p
            source = source[:, None] + offs_c.to(tl.int64)[None, :] * x_stride_c
            b = tl.load(x_ptr + source, mask=(mask_p & there)[:, None] & mask_c[None, :], other=0)
            total = tl.dot(tl.trans(g), b, total, input_precision=PRECISION)
    elements = channels * KH * KW
    row = WEIGHT * out_channels * elements + BIAS * out_channels
    row_ptr = partial_ptr + split.to(tl.int64) * row
    if WEIGHT:
        target = offs_o.to(tl.int64)[:, None] * elements + tap * weight_stride_t
        target += offs_c.to(tl.int64)[None, :] * weight_stride_c
        tl.store(row_ptr + target, total, mask=mask_o[:, None] & mask_c[None, :])
        row_ptr += out_channels * elements
    if BIAS:
        # Every tap and group of channels has summed the same: the first one writes.
        keep = mask_o & (tap == 0) & (group_c == 0)
        tl.store(row_ptr + offs_o, bias, mask=keep)
