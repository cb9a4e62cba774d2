# SPDX-License-Identifier: MIT
"""The gradients of the weight and the bias over rows of a padded image.

A product over all pixels of a layer, in blocks of BLOCK_H x BLOCK_W of them: beyond the result's
edges its gradient is zero. Splits of the blocks are added up by a second kernel, in their order;
where several layers fill a GPU together there is one split each, which is the gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.reflect_conv2d.triton_load import derivative


@triton.jit
def reflect_conv2d_rows_weight_kernel(
    grad_y,  # [layers batch, out_height, out_width, out_channels], its descriptor if DESCRIBED
    y_ptr,  # like grad_y, if TANH: then nothing is DESCRIBED
    x,  # [layers batch, height, width, channels], or its descriptor
    weight_ptr,  # [layers, out_channels, KH, KW, channels], if WEIGHT: the gradient if DIRECT,
    # else float32 and of every split, all layers' biases behind all weights
    bias_ptr,  # [layers, out_channels], if BIAS: the gradient if DIRECT, else the same memory
    other_grad_y,  # of a second call, if the grid has a second axis of two
    other_y_ptr,
    other_x,
    other_weight_ptr,
    other_bias_ptr,
    batch,  # images of a layer
    layers,  # whose images are one behind another
    height,
    width,
    channels,
    out_height,
    out_width,
    out_channels,
    blocks,  # of a split
    PAIR: tl.constexpr,
    DESCRIBED: tl.constexpr,
    DIRECT: tl.constexpr,  # there is one split
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    TANH: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One split's sum for BLOCK_O filters, one tap and BLOCK_C channels; and for the bias."""
    pid = tl.program_id(0)
    # Programs of a split are neighbours, and read the same pixels.
    groups_o, groups_c = out_channels // BLOCK_O, channels // BLOCK_C
    group_o, rest = pid % groups_o, pid // groups_o
    if WEIGHT:
        group_c, tap = rest % groups_c, rest // groups_c % (KH * KW)
        rest = rest // groups_c // (KH * KW)
    else:
        group_c, tap = 0, 0
    first_o, first_c = group_o * BLOCK_O, group_c * BLOCK_C
    of_layer = batch * tl.cdiv(out_height, BLOCK_H) * tl.cdiv(out_width, BLOCK_W)
    splits = tl.cdiv(of_layer, blocks)
    split, layer = rest % splits, rest // splits
    count = tl.minimum(blocks, of_layer - split * blocks)
    begin = layer * of_layer + split * blocks
    other_count = 0
    if PAIR:
        if WEIGHT:
            weight_ptr = of_call(weight_ptr, other_weight_ptr)
        if BIAS:
            bias_ptr = of_call(bias_ptr, other_bias_ptr)
        if DESCRIBED:
            other_count = of_call(0, count)
        else:
            grad_y, x = of_call(grad_y, other_grad_y), of_call(x, other_x)
            if TANH:
                y_ptr = of_call(y_ptr, other_y_ptr)
    total = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    bias = tl.zeros((BLOCK_O,), tl.float32)
    total, bias = _product(
        total,
        bias,
        grad_y,
        y_ptr,
        x,
        begin,
        count - other_count,
        first_o,
        first_c,
        tap // KW,
        tap % KW,
        height,
        width,
        channels,
        out_height,
        out_width,
        out_channels,
        DESCRIBED,
        WEIGHT,
        BIAS,
        TANH,
        PRECISION,
        BLOCK_H,
        BLOCK_W,
        BLOCK_O,
        BLOCK_C,
    )
    if PAIR and DESCRIBED:
        # Descriptors are no values to choose from: a loop for each call, of which one runs.
        total, bias = _product(
            total,
            bias,
            other_grad_y,
            other_y_ptr,
            other_x,
            begin,
            other_count,
            first_o,
            first_c,
            tap // KW,
            tap % KW,
            height,
            width,
            channels,
            out_height,
            out_width,
            out_channels,
            DESCRIBED,
            WEIGHT,
            BIAS,
            TANH,
            PRECISION,
            BLOCK_H,
            BLOCK_W,
            BLOCK_O,
            BLOCK_C,
        )
    row = KH * KW * channels  # of the weight, for one filter
    # Every layer's filters, one behind another.
    offs_o = (first_o + tl.arange(0, BLOCK_O)).to(tl.int64) + layer.to(tl.int64) * out_channels
    if not DIRECT:
        filters = out_channels.to(tl.int64) * layers
        before = split * filters * (WEIGHT * row + BIAS)
        if WEIGHT:
            weight_ptr += before
        if BIAS:
            bias_ptr += before + WEIGHT * filters * row
    if WEIGHT:
        offs_c = first_c + tl.arange(0, BLOCK_C)
        target = offs_o[:, None] * row + (tap * channels + offs_c)[None, :]
        tl.store(weight_ptr + target, total)
    if BIAS:
        # Every tap and group of channels has summed the same: the first one writes.
        keep = (offs_o >= 0) & (tap == 0) & (group_c == 0)
        tl.store(bias_ptr + offs_o, bias, mask=keep)


@triton.jit
def _product(
    total,  # [BLOCK_O, BLOCK_C] float32, to which the product is added
    bias,  # [BLOCK_O] float32, likewise
    grad_y,
    y_ptr,
    x,
    begin,  # the first block
    count,  # of blocks
    first_o,
    first_c,
    r,  # the tap's row
    s,  # and column
    height,
    width,
    channels,
    out_height,
    out_width,
    out_channels,
    DESCRIBED: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    TANH: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Sum over blocks of pixels."""
    across, down = tl.cdiv(out_width, BLOCK_W), tl.cdiv(out_height, BLOCK_H)
    in_block = tl.arange(0, BLOCK_H * BLOCK_W)
    offs_o = first_o + tl.arange(0, BLOCK_O)
    offs_c = first_c + tl.arange(0, BLOCK_C)
    for block in range(begin, begin + count):
        n = block // (across * down)
        top, left = block // across % down * BLOCK_H, block % across * BLOCK_W
        if DESCRIBED:
            g = grad_y.load([n, top, left, first_o]).reshape(BLOCK_H * BLOCK_W, BLOCK_O).T
            if WEIGHT:
                b = x.load([n, top + r, left + s, first_c]).reshape(BLOCK_H * BLOCK_W, BLOCK_C)
        else:
            i, j = top + in_block // BLOCK_W, left + in_block % BLOCK_W
            there = (i < out_height) & (j < out_width)
            pixel = (n.to(tl.int64) * out_height + i) * out_width + j
            # Already transposed: what is loaded the other way passes registers before sm_90.
            source = pixel[None, :] * out_channels + offs_o[:, None]
            g = derivative(grad_y, y_ptr, source, there[None, :], TANH)
            if WEIGHT:
                pixel = (n.to(tl.int64) * height + i + r) * width + j + s
                source = pixel[:, None] * channels + offs_c[None, :]
                b = tl.load(x + source, mask=there[:, None], other=0)
        if BIAS:
            bias += tl.sum(g.to(tl.float32), 1)
        if WEIGHT:
            total = tl.dot(g, b, total, input_precision=PRECISION)
    return total, bias
