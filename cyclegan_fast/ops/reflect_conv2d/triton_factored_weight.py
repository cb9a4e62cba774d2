# SPDX-License-Identifier: MIT
"""The weight's gradient of convolutions between many channels and few in Triton.

A product over pixels: rows are the many channels, columns the taps and the few channels, KW * THIN
values side by side for each of the kernel's rows, as in triton_factored_wide.py. With few channels
these are the image's, with few results those of the gradient, turned and zero outside:

    dL/dw[o, c, r, s] = sum over i, j of g[i, j, o] x[i + r, j + s, c]
                      = sum over u, v of x[u, v, c] g[u - r, v - s, o]
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, reflected
from cyclegan_fast.ops.reflect_conv2d.triton_load import derivative


@triton.jit
def reflect_conv2d_factored_weight_kernel(
    grad_y_ptr,  # [N, out_channels, out_height, out_width]; all pairs: of the two calls
    other_grad_y_ptr,
    y_ptr,  # like grad_y, if TANH
    other_y_ptr,
    x_ptr,  # [N, channels, height, width]; few channels are side by side, many in either layout
    other_x_ptr,
    partial_ptr,  # [splits, weight and bias]: the weight's elements in its layout, then the bias's
    other_partial_ptr,
    batch,
    many,  # channels
    height,
    width,
    out_height,
    out_width,
    many_stride_p,  # from pixel to pixel
    many_stride_c,
    weight_stride_many,
    weight_stride_few,
    weight_stride_t,  # from tap to tap
    rows,  # of the batch's in a split
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    TANH: tl.constexpr,
    FEW_RESULTS: tl.constexpr,
    THIN: tl.constexpr,
    PAD: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,  # of the kernel's rows
    SPAN: tl.constexpr,  # at least KW * THIN
    SLOTS: tl.constexpr,  # at least THIN
):
    """Sums of a split, BLOCK_P columns of some rows, for BLOCK_C channels and BLOCK_R rows."""
    grad_y_ptr, y_ptr = of_call(grad_y_ptr, other_grad_y_ptr), of_call(y_ptr, other_y_ptr)
    x_ptr, partial_ptr = of_call(x_ptr, other_x_ptr), of_call(partial_ptr, other_partial_ptr)
    # Where the many channels are counted: in the result, or in the padded image.
    down = out_height + (KH - 1 if FEW_RESULTS else 0)
    wide = out_width + (KW - 1 if FEW_RESULTS else 0)
    across = tl.cdiv(wide, BLOCK_P)
    pid = tl.program_id(0)
    if WEIGHT:
        groups_c, groups_r = tl.cdiv(many, BLOCK_C), tl.cdiv(KH, BLOCK_R)
    else:
        groups_c, groups_r = (1 if FEW_RESULTS else tl.cdiv(many, BLOCK_C)), 1
    group_c, group_r = pid % groups_c, pid // groups_c % groups_r
    split = pid // groups_c // groups_r
    v = split % across * BLOCK_P + tl.arange(0, BLOCK_P)
    mask_p = v < wide
    offs_c = (group_c * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = offs_c < many
    offs_n = tl.arange(0, BLOCK_R * SPAN)
    r, k = group_r * BLOCK_R + offs_n // SPAN, offs_n % SPAN
    tap, few = k // THIN, k % THIN
    mask_n = (r < KH) & (k < KW * THIN)
    # Where a position's values are in their rows is the same for all rows: it is found once.
    if FEW_RESULTS:
        column = (v - (KW - 1))[:, None] + tap[None, :]
        taken = mask_p[:, None] & mask_n[None, :] & (column >= 0) & (column < out_width)
        shown = reflected(v, PAD, width)
    else:
        column = reflected(v[:, None] + tap[None, :], PAD, width)
        taken = mask_p[:, None] & mask_n[None, :]
        shown = v
    column = column * THIN + few[None, :]
    filled = mask_p[:, None] & mask_c[None, :]
    offs_few = tl.arange(0, SLOTS)
    total = tl.zeros((BLOCK_C, BLOCK_R * SPAN), tl.float32)
    bias = tl.zeros((SLOTS if FEW_RESULTS else BLOCK_C,), tl.float32)
    first = split // across * rows
    for line in range(first, tl.minimum(first + rows, batch * down)):
        n, u = (line // down).to(tl.int64), line % down
        if FEW_RESULTS:
            source = (reflected(u, PAD, height) * width + shown).to(tl.int64) * many_stride_p
            source += n * many * height * width
        else:
            source = (u * out_width + shown).to(tl.int64) * many_stride_p
            source += n * many * out_height * out_width
        source = source[:, None] + (offs_c * many_stride_c)[None, :]
        if FEW_RESULTS:
            if WEIGHT:
                a = tl.load(x_ptr + source, mask=filled, other=0)
            if BIAS:
                g = ((n * out_height + u) * out_width + v)[:, None] * THIN + offs_few[None, :]
                there = (v < out_width)[:, None] & (offs_few < THIN)[None, :] & (u < out_height)
                g = derivative(grad_y_ptr, y_ptr, g, there, TANH)
                bias += tl.sum(g.to(tl.float32), 0)
        else:
            a = derivative(grad_y_ptr, y_ptr, source, filled, TANH)
            if BIAS:
                bias += tl.sum(a.to(tl.float32), 0)
        if WEIGHT:
            if FEW_RESULTS:
                row = u - (KH - 1) + r
                there = taken & ((row >= 0) & (row < out_height))[None, :]
                source = ((n * out_height + row) * (out_width * THIN))[None, :] + column
                b = derivative(grad_y_ptr, y_ptr, source, there, TANH)
            else:
                row = reflected(u + r, PAD, height)
                source = ((n * height + row) * (width * THIN))[None, :] + column
                b = tl.load(x_ptr + source, mask=taken, other=0)
            total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    elements = many.to(tl.int64) * (THIN * KH * KW)
    partial_ptr += split * (WEIGHT * elements + BIAS * (THIN if FEW_RESULTS else many))
    if WEIGHT:
        at = r * KW + tap
        if FEW_RESULTS:
            at = KH * KW - 1 - at
        target = (at * weight_stride_t + few * weight_stride_few)[None, :]
        target = target + (offs_c * weight_stride_many)[:, None]
        tl.store(partial_ptr + target, total, mask=mask_c[:, None] & mask_n[None, :])
        partial_ptr += elements
    if BIAS:
        # Every group that sums the same has the same sum: the first one writes.
        if FEW_RESULTS:
            keep = (offs_few < THIN) & (group_c == 0) & (group_r == 0)
            tl.store(partial_ptr + offs_few, bias, mask=keep)
        else:
            tl.store(partial_ptr + offs_c, bias, mask=mask_c & (group_r == 0))
