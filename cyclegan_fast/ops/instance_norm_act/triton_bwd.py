# SPDX-License-Identifier: MIT
"""instance_norm_act backward in Triton. How programs cover an image: triton_kernels.py.

With d = x - mean, dz = g * act'(d * scale + bias), scale = rstd * weight and P pixels per plane:
    s1 = sum dz,  s2 = rstd * sum dz * d,  grad_x = scale * (dz - s1 / P - d * rstd * s2 / P)
where g = fold(grad_y) + grad_skip is the gradient of the sum of activation and residual.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import folded


@triton.jit
def activation_gradient(g, z, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """The gradient at z of what has gradient g; at 0 as below 0, at nan as PyTorch has it."""
    if ACT == 1:
        g = tl.where(z <= 0, 0, g)
    if ACT == 2:
        g = tl.where(z > 0, g, g * SLOPE)
    return g


@triton.jit
def gradient(
    grad_y_ptr,  # the image's, padded, or None
    grad_skip_ptr,  # the image's, or None
    first,  # the tile's first pixel
    offs_p,  # [BLOCK_P] its pixels
    channel,  # [BLOCK_C]
    mask,  # [BLOCK_P, BLOCK_C]
    height,
    width,
    stride_p,  # of grad_y
    y_stride_c,
    skip_stride_c,
    skip_stride_h,
    skip_stride_w,
    PAD: tl.constexpr,
    ACC: tl.constexpr,
):
    """G at a tile's pixels, in the accumulator's dtype."""
    g = tl.zeros(mask.shape, ACC)
    if grad_y_ptr is not None:
        offs_c = channel * y_stride_c
        g = folded(grad_y_ptr, first, offs_p, offs_c, mask, height, width, stride_p, ACC, PAD)
    if grad_skip_ptr is not None:
        h = (offs_p // width).to(tl.int64)
        w = (offs_p % width).to(tl.int64)
        offsets = (h * skip_stride_h + w * skip_stride_w)[:, None]
        offsets += (channel * skip_stride_c)[None, :]
        g += tl.load(grad_skip_ptr + offsets, mask=mask, other=0).to(ACC)
    return g


@triton.jit
def combined_sums(
    partial_ptr,  # [partials, 2, channels] of an image
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    channels,
    partials,
    PARTIALS: tl.constexpr,  # a power of two, at least partials
):
    """Both sums over a plane from its chunks'."""
    each = tl.arange(0, PARTIALS)
    there = (each < partials)[:, None] & mask_c[None, :]
    partial = (each * 2 * channels)[:, None] + channel[None, :]
    s1 = tl.sum(tl.load(partial_ptr + partial, mask=there, other=0), 0)
    s2 = tl.sum(tl.load(partial_ptr + partial + channels, mask=there, other=0), 0)
    return s1, s2


@triton.jit
def instance_norm_act_bwd_kernel(
    x_ptr,  # [N, C, H, W]
    weight_ptr,  # acc [C] or None
    bias_ptr,  # acc [C] or None
    mean_ptr,  # acc [N, C]
    rstd_ptr,  # acc [N, C]
    grad_y_ptr,  # [N, C, H + 2 PAD, W + 2 PAD] or None
    grad_skip_ptr,  # [N, C, H, W], any strides, or None
    grad_x_ptr,  # [N, C, H, W]
    grad_residual_ptr,  # [N, C, H, W] or None
    sums_ptr,  # acc [2, N, C]
    partial_ptr,  # acc [N, partials, 2, C], not used where SUMS and WRITE
    planes,  # N C
    channels,
    height,
    width,
    chunks,
    chunk,  # pixels in each but the last
    partials,  # chunks whose sums are there
    stride_p,
    x_stride_c,
    y_stride_c,
    skip_stride_n,
    skip_stride_c,
    skip_stride_h,
    skip_stride_w,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ACC: tl.constexpr,
    SUMS: tl.constexpr,  # take this chunk's sums
    WRITE: tl.constexpr,  # write this chunk's gradient: after all chunks' sums
    KEPT: tl.constexpr,  # whoever has taken the sums has left g in grad_residual
    PARTIALS: tl.constexpr,  # a power of two, at least partials
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One launch with SUMS and WRITE where a program has a whole plane; else one for each.

    The second one alone where a convolution has left the sums.
    """
    groups = tl.cdiv(channels, BLOCK_C)
    pid = tl.program_id(0)
    if not SUMS:  # backwards: what the launch before read last is still in the cache
        pid = tl.num_programs(0) - 1 - pid
    k = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    pixels = height * width
    begin = k * chunk
    end = tl.minimum(begin + chunk, pixels)

    statistic = n * channels + channel
    mean = tl.load(mean_ptr + statistic, mask=mask_c, other=0)
    rstd = tl.load(rstd_ptr + statistic, mask=mask_c, other=0)
    scale = rstd
    if weight_ptr is not None:
        scale = rstd * tl.load(weight_ptr + channel, mask=mask_c, other=0)
    bias = tl.zeros((BLOCK_C,), ACC)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=mask_c, other=0)

    image = n * channels * pixels
    x_ptr += image
    grad_x_ptr += image
    if grad_residual_ptr is not None:
        grad_residual_ptr += image
    if grad_y_ptr is not None:
        grad_y_ptr += n * channels * (height + 2 * PAD) * (width + 2 * PAD)
    if grad_skip_ptr is not None:
        grad_skip_ptr += n * skip_stride_n

    if SUMS:
        s1 = tl.zeros((BLOCK_C,), ACC)
        s2 = tl.zeros((BLOCK_C,), ACC)
        for first in range(begin, end, BLOCK_P):
            offs_p = first + tl.arange(0, BLOCK_P)
            mask = (offs_p < end)[:, None] & mask_c[None, :]
            offsets = offs_p.to(tl.int64)[:, None] * stride_p + (channel * x_stride_c)[None, :]
            g = gradient(
                grad_y_ptr,
                grad_skip_ptr,
                first,
                offs_p,
                channel,
                mask,
                height,
                width,
                stride_p,
                y_stride_c,
                skip_stride_c,
                skip_stride_h,
                skip_stride_w,
                PAD,
                ACC,
            )
            if grad_residual_ptr is not None:
                tl.store(grad_residual_ptr + offsets, g, mask=mask)
            d = tl.load(x_ptr + offsets, mask=mask, other=0).to(ACC) - mean[None, :]
            dz = activation_gradient(g, d * scale[None, :] + bias[None, :], ACT, SLOPE)
            s1 += tl.sum(dz, 0)
            s2 += tl.sum(tl.where(mask, dz * d, 0), 0)
        s2 *= rstd
        if not WRITE:
            partial = partial_ptr + (n * chunks + k) * 2 * channels + channel
            tl.store(partial, s1, mask=mask_c)
            tl.store(partial + channels, s2, mask=mask_c)
    else:
        partial = partial_ptr + n * partials * 2 * channels
        s1, s2 = combined_sums(partial, channel, mask_c, channels, partials, PARTIALS)

    if WRITE:
        tl.store(sums_ptr + statistic, s1, mask=mask_c & (k == 0))
        tl.store(sums_ptr + planes + statistic, s2, mask=mask_c & (k == 0))
        count = tl.cast(pixels, ACC)
        constant = -scale * (s1 / count)
        slope = -scale * rstd * (s2 / count)
        # What the loop above has stored of grad_residual, another thread may read below.
        tl.debug_barrier()
        for first in range(begin, end, BLOCK_P):
            offs_p = first + tl.arange(0, BLOCK_P)
            mask = (offs_p < end)[:, None] & mask_c[None, :]
            offsets = offs_p.to(tl.int64)[:, None] * stride_p + (channel * x_stride_c)[None, :]
            if KEPT and grad_residual_ptr is not None:
                g = tl.load(grad_residual_ptr + offsets, mask=mask, other=0).to(ACC)
            else:
                g = gradient(
                    grad_y_ptr,
                    grad_skip_ptr,
                    first,
                    offs_p,
                    channel,
                    mask,
                    height,
                    width,
                    stride_p,
                    y_stride_c,
                    skip_stride_c,
                    skip_stride_h,
                    skip_stride_w,
                    PAD,
                    ACC,
                )
                if grad_residual_ptr is not None:
                    tl.store(grad_residual_ptr + offsets, g, mask=mask)
            d = tl.load(x_ptr + offsets, mask=mask, other=0).to(ACC) - mean[None, :]
            dz = activation_gradient(g, d * scale[None, :] + bias[None, :], ACT, SLOPE)
            dx = scale[None, :] * dz + (constant[None, :] + slope[None, :] * d)
            tl.store(grad_x_ptr + offsets, dx, mask=mask)
