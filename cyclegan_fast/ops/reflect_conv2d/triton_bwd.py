# SPDX-License-Identifier: MIT
"""reflect_conv2d's backward kernels in Triton: gathers and two-stage sums, so nothing races.

With g = dL/dy, times 1 - y^2 where y is a tanh: the gradient of x gathers g over the taps and over
a pixel's mirror images; the gradient of the weight is a product over all pixels, cut into splits
whose partial sums a second kernel adds in order; the gradient of the bias is summed beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call, reflected


@triton.jit
def reflect_conv2d_bwd_kernel(
    grad_y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
    y_ptr,  # like grad_y, if TANH
    weight_ptr,  # [out_channels, channels, KH, KW], either dense layout
    grad_x_ptr,  # [N, channels, height, width], either dense layout
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
    TANH: tl.constexpr,
    PAD: tl.constexpr,
    STRIDE: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """Each pixel of x gathers from all windows that have read it, or a mirror image of it."""
    groups = tl.cdiv(channels, BLOCK_C)
    across, down = tl.cdiv(width, BLOCK_W), tl.cdiv(height, BLOCK_H)
    pid = tl.program_id(0)
    tile = pid // groups % (across * down)
    n = (pid // groups // (across * down)).to(tl.int64)
    top, left = tile // across * BLOCK_H, tile % across * BLOCK_W
    offs_c = pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)
    mask_c = offs_c < channels
    in_tile = tl.arange(0, BLOCK_H * BLOCK_W)
    h, w = top + in_tile // BLOCK_W, left + in_tile % BLOCK_W
    mask_p = (h < height) & (w < width)
    grad_y_ptr += n * out_channels * out_height * out_width
    y_ptr += n * out_channels * out_height * out_width
    blocks = tl.cdiv(out_channels, BLOCK_O)
    total = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_C), tl.float32)
    # The pixel itself; then its images beyond the edges, in the tiles that have any. A rectangle of
    # pixels rather than a row of them: most rectangles have none on either side.
    for image in range(9 if PAD > 0 else 1):
        side_h, side_w = image // 3, image % 3
        any_h = _touches(side_h, top, BLOCK_H, height, PAD)
        any_w = _touches(side_w, left, BLOCK_W, width, PAD)
        steps = tl.where(any_h & any_w, KH * KW * blocks, 0)
        padded_h, there_h = _image(side_h, h, height, PAD)
        padded_w, there_w = _image(side_w, w, width, PAD)
        there = mask_p & there_h & there_w
        for step in range(steps):
            tap = step // blocks
            offs_o = step % blocks * BLOCK_O + tl.arange(0, BLOCK_O)
            mask_o = offs_o < out_channels
            row, column = padded_h - tap // KW, padded_w - tap % KW
            out_h, out_w = row // STRIDE, column // STRIDE
            reads = there & (row >= 0) & (column >= 0) & (out_h < out_height) & (out_w < out_width)
            if STRIDE > 1:
                reads = reads & (row % STRIDE == 0) & (column % STRIDE == 0)
            source = (out_h * out_width + out_w).to(tl.int64)[:, None] * y_stride_p
            source += offs_o.to(tl.int64)[None, :] * y_stride_c
            mask = reads[:, None] & mask_o[None, :]
            a = _derivative(grad_y_ptr, y_ptr, source, mask, TANH)
            source = offs_o.to(tl.int64)[:, None] * (channels * KH * KW)
            source += offs_c.to(tl.int64)[None, :] * weight_stride_c + tap * weight_stride_t
            b = tl.load(weight_ptr + source, mask=mask_o[:, None] & mask_c[None, :], other=0)
            total = tl.dot(a, b, total, input_precision=PRECISION)
    target = (h * width + w).to(tl.int64)[:, None] * x_stride_p
    target += offs_c.to(tl.int64)[None, :] * x_stride_c
    target += n * channels * height * width
    tl.store(grad_x_ptr + target, total, mask=mask_p[:, None] & mask_c[None, :])


@triton.jit
def _image(side, i, size, PAD: tl.constexpr):
    """Padded position of the image of row i on a side (0: itself, 1: before, 2: behind), if any."""
    behind = size - 1 - i
    position = tl.where(side == 0, i + PAD, tl.where(side == 1, PAD - i, size - 1 + PAD + behind))
    before = (i >= 1) & (i <= PAD)
    there = (side == 0) | ((side == 1) & before)
    there = there | ((side == 2) & (behind >= 1) & (behind <= PAD))
    return position, there


@triton.jit
def _touches(side, first, BLOCK: tl.constexpr, size, PAD: tl.constexpr):
    """Whether any of the rows from first on has an image on a side."""
    before = (side == 1) & (first <= PAD)
    behind = (side == 2) & (first + BLOCK - 1 >= size - 1 - PAD)
    return (side == 0) | before | behind


@triton.jit
def _derivative(grad_y_ptr, y_ptr, source, mask, TANH: tl.constexpr):
    """dL/dz of z, of which y is the activation, in the dtype that tensor cores multiply."""
    grad = tl.load(grad_y_ptr + source, mask=mask, other=0)
    if TANH:
        y = tl.load(y_ptr + source, mask=mask, other=0).to(tl.float32)
        grad = (grad.to(tl.float32) * (1 - y * y)).to(grad_y_ptr.dtype.element_ty)
    return grad


@triton.jit
def reflect_conv2d_weight_kernel(
    grad_y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
    y_ptr,  # like grad_y, if TANH
    x_ptr,  # [N, channels, height, width], either dense layout
    partial_ptr,  # [splits, weight and bias]: the weight's elements in its layout, then the bias's
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
    STRIDE: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One split's sum for BLOCK_O filters, one tap and BLOCK_C channels; and for the bias."""
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
        g = _derivative(grad_y_ptr, y_ptr, source, mask_p[:, None] & mask_o[None, :], TANH)
        if BIAS:
            bias += tl.sum(g.to(tl.float32), 0)
        if WEIGHT:
            h = reflected(p // out_width * STRIDE + tap // KW, PAD, height)
            w = reflected(p % out_width * STRIDE + tap % KW, PAD, width)
            source = n * channels * height * width + (h * width + w).to(tl.int64) * x_stride_p
            source = source[:, None] + offs_c.to(tl.int64)[None, :] * x_stride_c
            b = tl.load(x_ptr + source, mask=mask_p[:, None] & mask_c[None, :], other=0)
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


@triton.jit
def reflect_conv2d_sum_kernel(
    partial_ptr,  # [splits, weight_elements + bias_elements] float32
    grad_weight_ptr,  # [weight_elements], or nothing
    grad_bias_ptr,  # [bias_elements], or nothing
    splits,
    weight_elements,
    bias_elements,
    BLOCK: tl.constexpr,
    other_partial_ptr=None,  # the same of a second call, if the grid has a second axis of two
    other_weight_ptr=None,
    other_bias_ptr=None,
):
    """Add the splits' sums, in their order."""
    if other_partial_ptr is not None:
        partial_ptr = of_call(partial_ptr, other_partial_ptr)
        grad_weight_ptr = of_call(grad_weight_ptr, other_weight_ptr)
        grad_bias_ptr = of_call(grad_bias_ptr, other_bias_ptr)
    elements = weight_elements + bias_elements
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < elements
    total = tl.zeros((BLOCK,), tl.float32)
    for _split in range(splits):
        total += tl.load(partial_ptr + offs, mask=mask, other=0)
        partial_ptr += elements
    tl.store(grad_weight_ptr + offs, total, mask=offs < weight_elements)
    tl.store(grad_bias_ptr + offs - weight_elements, total, mask=mask & (offs >= weight_elements))
