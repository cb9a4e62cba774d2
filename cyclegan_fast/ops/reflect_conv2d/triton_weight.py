# SPDX-License-Identifier: MIT
"""reflect_conv2d's gradient of the weight in Triton: a product over all pixels, cut into splits.

reflect_conv2d_sum_kernel adds the splits' sums in order; where there is one split, it is the
gradient. That of the bias is summed beside it. Layers of the same sizes are groups of one launch,
along the grid's third axis. Both images are loaded as triton_load says.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d.triton_fwd import source_pixel
from cyclegan_fast.ops.reflect_conv2d.triton_load import load_tile


@triton.jit
def reflect_conv2d_weight_kernel(
    grad_y_ptr,  # [groups batch, out_channels, out_height, out_width], the layout of x
    x_ptr,  # [groups batch, channels, height, width], either dense layout
    weight_ptr,  # [groups, out_channels, channels, KH, KW] in its layout, if WEIGHT: the gradient
    # if DIRECT, else float32 and of every split, all groups' biases behind all weights
    bias_ptr,  # [groups, out_channels], if BIAS: the gradient if DIRECT, else the same memory
    other_grad_y_ptr,  # from here on the second call's
    other_x_ptr,
    other_weight_ptr,
    other_bias_ptr,
    batch,  # images of a group
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
    chunk,  # positions of a split, a multiple of BLOCK_P
    y_beside_ptr,  # how grad_y is loaded, see triton_load
    y_mean_ptr,
    y_rstd_ptr,
    y_weight_ptr,
    y_bias_ptr,
    y_sums_ptr,
    other_y_beside_ptr,
    other_y_mean_ptr,
    other_y_rstd_ptr,
    other_y_weight_ptr,
    other_y_bias_ptr,
    other_y_sums_ptr,
    x_beside_ptr,  # how x is loaded, see triton_load
    x_mean_ptr,
    x_rstd_ptr,
    x_weight_ptr,
    x_bias_ptr,
    x_sums_ptr,
    other_x_beside_ptr,
    other_x_mean_ptr,
    other_x_rstd_ptr,
    other_x_weight_ptr,
    other_x_bias_ptr,
    other_x_sums_ptr,
    Y_FORM: tl.constexpr,
    Y_ACT: tl.constexpr,
    Y_SLOPE: tl.constexpr,
    X_FORM: tl.constexpr,
    X_ACT: tl.constexpr,
    X_SLOPE: tl.constexpr,
    BY_IMAGE: tl.constexpr,  # each image has whole blocks of positions, for a norm is its own
    DIRECT: tl.constexpr,  # there is one split
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
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
    pixels = out_height * out_width
    group = tl.program_id(2).to(tl.int64)
    first_image = group * batch
    grad_y_ptr, x_ptr = of_call(grad_y_ptr, other_grad_y_ptr), of_call(x_ptr, other_x_ptr)
    if y_beside_ptr is not None:
        y_beside_ptr = of_call(y_beside_ptr, other_y_beside_ptr)
    if x_beside_ptr is not None:
        x_beside_ptr = of_call(x_beside_ptr, other_x_beside_ptr)
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
    each = pixels  # positions of an image
    if BY_IMAGE:
        each = tl.cdiv(pixels, BLOCK_P) * BLOCK_P
    end = tl.minimum((split + 1) * chunk, batch * each)
    for first in range(split * chunk, end, BLOCK_P):
        image = first_image + first // each  # if BY_IMAGE
        if BY_IMAGE:
            p = first % each + tl.arange(0, BLOCK_P)
            mask_p = p < pixels
            n = tl.zeros((BLOCK_P,), tl.int64) + image
        else:
            offs = first + tl.arange(0, BLOCK_P)
            mask_p = offs < end
            n, p = first_image + offs // pixels, offs % pixels
        source = n[:, None] * out_channels * pixels + p.to(tl.int64)[:, None] * y_stride_p
        source += offs_o.to(tl.int64)[None, :] * y_stride_c
        g = load_tile(
            grad_y_ptr,
            y_beside_ptr,
            source,
            mask_p[:, None] & mask_o[None, :],
            image,
            offs_o,
            mask_o,
            out_channels,
            pixels,
            group,
            (y_mean_ptr, y_rstd_ptr, y_weight_ptr, y_bias_ptr, y_sums_ptr),
            (
                other_y_mean_ptr,
                other_y_rstd_ptr,
                other_y_weight_ptr,
                other_y_bias_ptr,
                other_y_sums_ptr,
            ),
            Y_FORM,
            Y_ACT,
            Y_SLOPE,
        )
        if BIAS:
            bias += tl.sum(g.to(tl.float32), 0)
        if WEIGHT:
            row, column = p // out_width * STRIDE, p % out_width * STRIDE
            h, w, there = source_pixel(
                row + tap // KW, column + tap % KW, height, width, PAD, ZEROS
            )
            source = n * channels * height * width + (h * width + w).to(tl.int64) * x_stride_p
            source = source[:, None] + offs_c.to(tl.int64)[None, :] * x_stride_c
            b = load_tile(
                x_ptr,
                x_beside_ptr,
                source,
                (mask_p & there)[:, None] & mask_c[None, :],
                image,
                offs_c,
                mask_c,
                channels,
                height * width,
                group,
                (x_mean_ptr, x_rstd_ptr, x_weight_ptr, x_bias_ptr, x_sums_ptr),
                (
                    other_x_mean_ptr,
                    other_x_rstd_ptr,
                    other_x_weight_ptr,
                    other_x_bias_ptr,
                    other_x_sums_ptr,
                ),
                X_FORM,
                X_ACT,
                X_SLOPE,
            )
            total = tl.dot(tl.trans(g), b, total, input_precision=PRECISION)
    elements = channels * KH * KW  # of a filter
    filters = tl.num_programs(2).to(tl.int64) * out_channels  # of all groups
    own = group * out_channels + offs_o
    before = split * filters * (WEIGHT * elements + BIAS)
    if WEIGHT:
        weight_ptr = of_call(weight_ptr, other_weight_ptr)
        if not DIRECT:
            weight_ptr += before
        target = own[:, None] * elements + tap * weight_stride_t
        target += offs_c.to(tl.int64)[None, :] * weight_stride_c
        tl.store(weight_ptr + target, total, mask=mask_o[:, None] & mask_c[None, :])
    if BIAS:
        bias_ptr = of_call(bias_ptr, other_bias_ptr)
        if not DIRECT:
            bias_ptr += before + WEIGHT * filters * elements
        # Every tap and group of channels has summed the same: the first one writes.
        keep = mask_o & (tap == 0) & (group_c == 0)
        tl.store(bias_ptr + own, bias, mask=keep)
