# SPDX-License-Identifier: MIT
"""reflect_conv2d's gradient of x in Triton, and what adds up the weight's.

With g = dL/dy, as triton_load makes it: each pixel gathers g over the taps and over its mirror
images, so nothing races. Pixels whose row and column leave the same remainders by the stride
are a phase: the same taps reach all of them, and a tile is of one phase, so no tap is in vain.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d.triton_beside import sums_of_call
from cyclegan_fast.ops.reflect_conv2d.triton_epilogues import leave_moments, leave_sums, with_tile
from cyclegan_fast.ops.reflect_conv2d.triton_load import load_tile


@triton.jit
def reflect_conv2d_bwd_kernel(
    grad_y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
    weight_ptr,  # [out_channels, channels, KH, KW], either dense layout
    bias_ptr,  # [channels] or None: of a transposed convolution, whose forward this is
    grad_x_ptr,  # [N, channels, height, width], either dense layout
    other_grad_y_ptr,  # from here on the second call's
    other_weight_ptr,
    other_bias_ptr,
    other_grad_x_ptr,
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
    partial_ptr,  # float32 [N, chunks, 2 or 3, channels] or None: left for the norm
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
    load_beside_ptr,  # like grad_y, or None: how grad_y is loaded, see triton_load
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
    PAD: tl.constexpr,
    ZEROS: tl.constexpr,  # in the place of reflection
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
    across = tl.cdiv(tl.cdiv(width, STRIDE), BLOCK_W)
    pid = tl.program_id(0)
    chunk = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    offs_c = pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)
    channel, mask_c = offs_c.to(tl.int64), offs_c < channels
    in_tile = tl.arange(0, BLOCK_H * BLOCK_W)
    grad_y_ptr = of_call(grad_y_ptr, other_grad_y_ptr) + n * out_channels * out_height * out_width
    if load_beside_ptr is not None:
        load_beside_ptr = of_call(load_beside_ptr, other_load_beside_ptr)
        load_beside_ptr += n * out_channels * out_height * out_width
    weight_ptr = of_call(weight_ptr, other_weight_ptr)
    grad_x_ptr = of_call(grad_x_ptr, other_grad_x_ptr) + n * channels * height * width
    if bias_ptr is not None:
        bias_ptr = of_call(bias_ptr, other_bias_ptr)
    blocks = tl.cdiv(out_channels, BLOCK_O)
    first, second = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    origin, count = tl.zeros((BLOCK_C,), tl.float32), 0.0
    for k in range(each):
        tile = chunk * each + k
        # The phases of a region one after the other: they read the same part of g.
        phase, tile = tile % (STRIDE * STRIDE), tile // (STRIDE * STRIDE)
        top = tile // across * (BLOCK_H * STRIDE) + phase // STRIDE
        left = tile % across * (BLOCK_W * STRIDE) + phase % STRIDE
        h, w = top + in_tile // BLOCK_W * STRIDE, left + in_tile % BLOCK_W * STRIDE
        mask_p = (h < height) & (w < width)
        total = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_C), tl.float32)
        # The pixel itself; then its images beyond the edges, in the tiles that have any. A
        # rectangle of pixels rather than a row of them: most rectangles have none on either side.
        for image in range(1 if ZEROS or PAD == 0 else 9):
            side_h, side_w = image // 3, image % 3
            any_h = _touches(side_h, top, (BLOCK_H - 1) * STRIDE, height, PAD)
            any_w = _touches(side_w, left, (BLOCK_W - 1) * STRIDE, width, PAD)
            padded_h, there_h = _image(side_h, h, height, PAD)
            padded_w, there_w = _image(side_w, w, width, PAD)
            there = mask_p & there_h & there_w
            tap_h = _first_tap(side_h, top, height, PAD, STRIDE)
            tap_w = _first_tap(side_w, left, width, PAD, STRIDE)
            row, column = padded_h // STRIDE, padded_w // STRIDE  # of the window by the first tap
            taps_h = (KH - tap_h + STRIDE - 1) // STRIDE
            taps_w = (KW - tap_w + STRIDE - 1) // STRIDE
            steps = tl.where(any_h & any_w, taps_h * taps_w * blocks, 0)
            for step in range(steps):
                tap = step // blocks
                offs_o = step % blocks * BLOCK_O + tl.arange(0, BLOCK_O)
                mask_o = offs_o < out_channels
                out_h, out_w = row - tap // taps_w, column - tap % taps_w
                reads = there & (out_h >= 0) & (out_h < out_height)
                reads = reads & (out_w >= 0) & (out_w < out_width)
                source = (out_h * out_width + out_w).to(tl.int64)[:, None] * y_stride_p
                source += offs_o.to(tl.int64)[None, :] * y_stride_c
                mask = reads[:, None] & mask_o[None, :]
                a = load_tile(
                    grad_y_ptr,
                    load_beside_ptr,
                    source,
                    mask,
                    n,
                    offs_o,
                    mask_o,
                    out_channels,
                    out_height * out_width,
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
                tap = (tap_h + tap // taps_w * STRIDE) * KW + tap_w + tap % taps_w * STRIDE
                source = offs_o.to(tl.int64)[:, None] * (channels * KH * KW)
                source += (channel * weight_stride_c)[None, :] + tap * weight_stride_t
                b = tl.load(weight_ptr + source, mask=mask_o[:, None] & mask_c[None, :], other=0)
                total = tl.dot(a, b, total, input_precision=PRECISION)
        if bias_ptr is not None:
            total += tl.load(bias_ptr + offs_c, mask=mask_c, other=0).to(tl.float32)[None, :]
        target = (h * width + w).to(tl.int64)[:, None] * x_stride_p
        target += (channel * x_stride_c)[None, :]
        if LEAVES != "masked":
            tl.store(grad_x_ptr + target, total, mask=mask_p[:, None] & mask_c[None, :])
        if LEAVES == "moments":
            origin, first, second, count = with_tile(
                origin, first, second, count, total, mask_p, mask_c, grad_x_ptr.dtype.element_ty
            )
        if LEAVES == "sums" or LEAVES == "masked":
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
                LEAVES == "masked",
            )
            first += sums[0]
            second += sums[1]
            if LEAVES == "masked":
                tl.store(grad_x_ptr + target, sums[2], mask=mask_p[:, None] & mask_c[None, :])
    if LEAVES == "moments":
        partial_ptr = of_call(partial_ptr, other_partial_ptr) + (n * chunks + chunk) * 3 * channels
        leave_moments(origin, first, second, channel, mask_c, partial_ptr, channels)
    if LEAVES == "sums" or LEAVES == "masked":
        partial_ptr = of_call(partial_ptr, other_partial_ptr) + (n * chunks + chunk) * 2 * channels
        leave_sums(first, second, channel, mask_c, partial_ptr, channels)


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
def _touches(side, first, span, size, PAD: tl.constexpr):
    """Whether any of the rows from first to first + span has an image on a side."""
    before = (side == 1) & (first <= PAD)
    behind = (side == 2) & (first + span >= size - 1 - PAD)
    return (side == 0) | before | behind


@triton.jit
def _first_tap(side, i, size, PAD: tl.constexpr, STRIDE: tl.constexpr):
    """The first tap that reaches the image of row i, and of all rows of its phase, on a side."""
    tap = 0
    if STRIDE > 1:
        position, _ = _image(side, i, size, PAD)
        # The remainder has the position's sign, which is negative where there is no image.
        tap = (position % STRIDE + STRIDE) % STRIDE
    return tap
