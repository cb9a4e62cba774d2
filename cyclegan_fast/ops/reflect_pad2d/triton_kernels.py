# SPDX-License-Identifier: MIT
"""reflect_pad2d in Triton: gathers in both directions, so nothing depends on order."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops._triton import folded, reflected

ELEMENTS = 2048  # of a tile: eight of a thread's at four warps


@triton.jit
def reflect_pad2d_fwd_kernel(
    x_ptr,  # [N, C, H, W], any strides
    y_ptr,  # [N, C, H + 2 PAD, W + 2 PAD], either dense layout, in a dtype of its own
    channels,
    height,
    width,
    x_stride_n,
    x_stride_c,
    x_stride_h,
    x_stride_w,
    y_stride_p,  # from pixel to pixel
    y_stride_c,
    PAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Each padded pixel reads the pixel that it shows."""
    padded_width = width + 2 * PAD
    padded = (height + 2 * PAD) * padded_width
    groups = tl.cdiv(channels, BLOCK_C)
    tiles = tl.cdiv(padded, BLOCK_P)
    pid = tl.program_id(0)
    group = pid % groups
    n = (pid // groups // tiles).to(tl.int64)
    offs_p = pid // groups % tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    offs_c = group * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (offs_p < padded)[:, None] & (offs_c < channels)[None, :]
    h = reflected(offs_p // padded_width, PAD, height)
    w = reflected(offs_p % padded_width, PAD, width)
    source = h.to(tl.int64) * x_stride_h + w.to(tl.int64) * x_stride_w
    source = source[:, None] + offs_c.to(tl.int64)[None, :] * x_stride_c
    value = tl.load(x_ptr + n * x_stride_n + source, mask=mask)
    target = offs_p.to(tl.int64)[:, None] * y_stride_p + offs_c.to(tl.int64)[None, :] * y_stride_c
    tl.store(y_ptr + n * channels * padded + target, value, mask=mask)


@triton.jit
def reflect_pad2d_bwd_kernel(
    grad_y_ptr,  # [N, C, H + 2 PAD, W + 2 PAD], either dense layout
    grad_x_ptr,  # [N, C, H, W], the same layout
    channels,
    height,
    width,
    stride_p,
    y_stride_c,
    x_stride_c,
    ACC: tl.constexpr,
    PAD: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Each pixel adds up the gradients of itself and of its mirror images."""
    pixels = height * width
    groups = tl.cdiv(channels, BLOCK_C)
    tiles = tl.cdiv(pixels, BLOCK_P)
    pid = tl.program_id(0)
    group = pid % groups
    n = (pid // groups // tiles).to(tl.int64)
    first = pid // groups % tiles * BLOCK_P
    offs_p = first + tl.arange(0, BLOCK_P)
    offs_c = (group * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask = (offs_p < pixels)[:, None] & (offs_c < channels)[None, :]
    image = grad_y_ptr + n * channels * (height + 2 * PAD) * (width + 2 * PAD)
    total = folded(
        image,
        first,
        offs_p,
        offs_c * y_stride_c,
        mask,
        height,
        width,
        stride_p,
        ACC,
        PAD,
    )
    target = offs_p.to(tl.int64)[:, None] * stride_p + offs_c[None, :] * x_stride_c
    tl.store(grad_x_ptr + n * channels * pixels + target, total, mask=mask)


def reflect_pad2d_fwd(x: Tensor, pad: int, y: Tensor) -> None:
    """Write x, padded, into y; both dense in one layout."""
    reflect_pad2d_copy(x, pad, y)


def reflect_pad2d_copy(x: Tensor, pad: int, y: Tensor) -> None:
    """Write x, padded and in y's dtype, into y, which is dense; x may have any strides."""
    _triton.check_plane("reflect_pad2d", y)
    n, c, h, w = x.shape
    tile = _triton.tile(y.shape[2] * y.shape[3], c, _triton.is_channels_last(y), ELEMENTS)
    programs = n * triton.cdiv(c, tile.channels) * triton.cdiv(y.shape[2] * y.shape[3], tile.pixels)
    with _triton.on(x):
        reflect_pad2d_fwd_kernel[(programs,)](
            x,
            y,
            c,
            h,
            w,
            *x.stride(),
            *_triton.strides(y),
            PAD=pad,
            BLOCK_P=tile.pixels,
            BLOCK_C=tile.channels,
        )


def reflect_pad2d_bwd(grad_y: Tensor, pad: int, grad_x: Tensor) -> None:
    """Write the gradient of what was padded into grad_x; both dense in one layout."""
    n, c, h, w = grad_x.shape
    stride_p, stride_c = _triton.strides(grad_x)
    tile = _triton.tile(h * w, c, _triton.is_channels_last(grad_x), ELEMENTS)
    programs = n * triton.cdiv(c, tile.channels) * triton.cdiv(h * w, tile.pixels)
    with _triton.on(grad_x):
        reflect_pad2d_bwd_kernel[(programs,)](
            grad_y,
            grad_x,
            c,
            h,
            w,
            stride_p,
            _triton.strides(grad_y)[1],
            stride_c,
            ACC=_triton.accumulator(grad_x),
            PAD=pad,
            BLOCK_P=tile.pixels,
            BLOCK_C=tile.channels,
        )
