# SPDX-License-Identifier: MIT
"""What a convolution in Triton leaves for the norm beside it, from results still in registers.

Forward the norm that reads the result takes its mean and variance from moments of tiles; backward
the norm that has made the input takes its two sums from sums of tiles. Each tile writes its own, in
no order that shows, and the norm combines them in the tiles' order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops.instance_norm_act.triton_bwd import activation_gradient
from cyclegan_fast.ops.instance_norm_act.triton_fwd import merged


@triton.jit
def with_tile(
    origin,  # [BLOCK_C] float32, a pixel
    mean,  # [BLOCK_C] float32, less the origin
    m2,  # [BLOCK_C] float32
    count,  # float32, of pixels
    value,  # [BLOCK_P, BLOCK_C] float32
    mask_p,  # [BLOCK_P] pixels of the image
    mask_c,  # [BLOCK_C]
    DTYPE: tl.constexpr,  # of the result in memory, whose moments they are
):
    """Moments of a chunk with one tile more: origin, mean less it, squared deviations, count.

    All is less the chunk's first pixel, so that nothing is lost far from zero. Of no pixels all
    four are zero.
    """
    value = value.to(DTYPE).to(tl.float32)
    there = mask_p[:, None] & mask_c[None, :]
    number = tl.sum(mask_p.to(tl.int32), 0).to(tl.float32)
    position = tl.arange(0, mask_p.shape[0])
    first = tl.min(tl.where(mask_p, position, mask_p.shape[0]), 0)
    own = tl.sum(tl.where((position == first)[:, None] & there, value, 0), 0)
    origin = tl.where(count > 0, origin, own)
    d = tl.where(there, value - origin[None, :], 0)
    tile_mean = tl.sum(d, 0) / tl.maximum(number, 1)
    d = tl.where(there, d - tile_mean[None, :], 0)
    both = merged(mean, m2, count, tile_mean, tl.sum(d * d, 0), tl.maximum(number, 1))
    mean, m2 = tl.where(number > 0, both[0], mean), tl.where(number > 0, both[1], m2)
    return origin, mean, m2, count + number


@triton.jit
def leave_moments(
    origin,  # [BLOCK_C] float32
    mean,  # [BLOCK_C] float32
    m2,  # [BLOCK_C] float32
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    partial_ptr,  # float32 [3, channels] of this chunk of this image
    channels,
):
    """Write a chunk's moments."""
    tl.store(partial_ptr + channel, origin, mask=mask_c)
    tl.store(partial_ptr + channels + channel, mean, mask=mask_c)
    tl.store(partial_ptr + 2 * channels + channel, m2, mask=mask_c)


@triton.jit
def tile_sums(
    grad,  # [BLOCK_P, BLOCK_C] float32: gradients of padded pixels
    h,  # [BLOCK_P] row of the pixel that each shows
    w,  # [BLOCK_P] its column
    own,  # [BLOCK_P] it is that pixel itself, no mirror image of it
    mask_p,  # [BLOCK_P]
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    x_ptr,  # pixel 0 of the norm's input, channels side by side
    skip_ptr,  # the image's gradient that comes past the convolution, in any strides, or None
    mean_ptr,  # float32 [channels] of this image
    rstd_ptr,  # the same
    weight_ptr,  # float32 [channels] or None
    bias_ptr,  # the same
    channels,
    width,
    skip_stride_c,
    skip_stride_h,
    skip_stride_w,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    DTYPE: tl.constexpr,  # of the gradient in memory
    MASKED: tl.constexpr,
):
    """Sums over a tile of dz and of dz xhat, and dz: the gradient at the activation's input.

    Folding adds each padded pixel's gradient to that of the pixel it shows, and so both sums over
    the padded pixels are those over the image. MASKED: dz is what lies in memory, and it is rounded
    before it is summed; else the gradient is.
    """
    mask = mask_p[:, None] & mask_c[None, :]
    mean = tl.load(mean_ptr + channel, mask=mask_c, other=0)
    rstd = tl.load(rstd_ptr + channel, mask=mask_c, other=0)
    if not MASKED:
        grad = grad.to(DTYPE).to(tl.float32)
    g = tl.where(mask, grad, 0)
    if skip_ptr is not None:
        source = h.to(tl.int64) * skip_stride_h + w.to(tl.int64) * skip_stride_w
        source = source[:, None] + (channel * skip_stride_c)[None, :]
        g += tl.load(skip_ptr + source, mask=mask & own[:, None], other=0).to(tl.float32)
    source = (h * width + w).to(tl.int64)[:, None] * channels + channel[None, :]
    d = tl.load(x_ptr + source, mask=mask, other=0).to(tl.float32) - mean[None, :]
    scale, bias = rstd, tl.zeros_like(rstd)
    if weight_ptr is not None:
        scale = rstd * tl.load(weight_ptr + channel, mask=mask_c, other=0)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=mask_c, other=0)
    dz = activation_gradient(g, d * scale[None, :] + bias[None, :], ACT, SLOPE)
    if MASKED:
        dz = dz.to(DTYPE).to(tl.float32)
    return tl.sum(dz, 0), tl.sum(tl.where(mask, dz * d, 0), 0) * rstd, dz


@triton.jit
def leave_sums(
    sum_dz,  # [BLOCK_C] float32
    sum_dz_xhat,  # [BLOCK_C] float32
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    partial_ptr,  # float32 [2, channels] of this chunk of this image
    channels,
):
    """Write a chunk's sums."""
    tl.store(partial_ptr + channel, sum_dz, mask=mask_c)
    tl.store(partial_ptr + channels + channel, sum_dz_xhat, mask=mask_c)
