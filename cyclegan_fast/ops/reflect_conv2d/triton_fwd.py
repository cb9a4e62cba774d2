# SPDX-License-Identifier: MIT
"""reflect_conv2d's forward kernel in Triton: an implicit GEMM that reflects while it loads.

A program makes BLOCK_P pixels of BLOCK_O channels of one image. The sum runs over the kernel's taps
and the input's channels; a tap is a shift of the pixels, reflected where it leaves the image.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import reflected, tanh


@triton.jit
def reflect_conv2d_fwd_kernel(
    x_ptr,  # [N, channels, height, width], either dense layout
    weight_ptr,  # [out_channels, channels, KH, KW], either dense layout
    bias_ptr,  # [out_channels], if HAS_BIAS
    y_ptr,  # [N, out_channels, out_height, out_width], the layout of x
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
    HAS_BIAS: tl.constexpr,
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
    """Y = act(weight * reflected x + bias)."""
    pixels = out_height * out_width
    groups = tl.cdiv(out_channels, BLOCK_O)
    tiles = tl.cdiv(pixels, BLOCK_P)
    pid = tl.program_id(0)
    n = (pid // groups // tiles).to(tl.int64)
    offs_p = pid // groups % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_o = pid % groups * BLOCK_O + tl.arange(0, BLOCK_O)
    mask_p, mask_o = offs_p < pixels, offs_o < out_channels
    row = offs_p // out_width * STRIDE
    column = offs_p % out_width * STRIDE
    image_ptr = x_ptr + n * channels * height * width
    filters = offs_o.to(tl.int64)[None, :] * (channels * KH * KW)
    blocks = tl.cdiv(channels, BLOCK_C)
    total = tl.zeros((BLOCK_P, BLOCK_O), tl.float32)
    for step in range(KH * KW * blocks):
        tap = step // blocks
        offs_c = step % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
        mask_c = offs_c < channels
        h = reflected(row + tap // KW, PAD, height)
        w = reflected(column + tap % KW, PAD, width)
        source = (h * width + w).to(tl.int64)[:, None] * x_stride_p
        source += offs_c.to(tl.int64)[None, :] * x_stride_c
        a = tl.load(image_ptr + source, mask=mask_p[:, None] & mask_c[None, :], other=0)
        source = filters + offs_c.to(tl.int64)[:, None] * weight_stride_c + tap * weight_stride_t
        b = tl.load(weight_ptr + source, mask=mask_c[:, None] & mask_o[None, :], other=0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias_ptr + offs_o, mask=mask_o, other=0).to(tl.float32)[None, :]
    if TANH:
        total = tanh(total, tl.float32)
    target = offs_p.to(tl.int64)[:, None] * y_stride_p
    target += offs_o.to(tl.int64)[None, :] * y_stride_c
    target += n * out_channels * pixels
    tl.store(y_ptr + target, total, mask=mask_p[:, None] & mask_o[None, :])
