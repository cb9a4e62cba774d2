# SPDX-License-Identifier: MIT
"""instance_norm_act forward in Triton. How programs cover an image: triton_kernels.py."""

from __future__ import annotations

import triton
import triton.language as tl

from cyclegan_fast.ops._triton import reflected


@triton.jit
def activated(z, ACT: tl.constexpr, SLOPE: tl.constexpr):
    """The activation, as PyTorch defines it at nan."""
    if ACT == 1:
        z = tl.where(z < 0, 0, z)
    if ACT == 2:
        z = tl.where(z < 0, z * SLOPE, z)
    return z


@triton.jit
def merged(mean, m2, count, their_mean, their_m2, their_count):
    """Mean and sum of squared deviations of two sets together (Chan, Golub and LeVeque 1983)."""
    delta = their_mean - mean
    share = their_count / (count + their_count)
    return mean + delta * share, m2 + their_m2 + delta * delta * (count * share)


@triton.jit
def moments(
    x_ptr,  # pixel 0 of the plane
    begin,
    end,
    offs_c,  # [BLOCK_C] offsets of the channels
    mask_c,  # [BLOCK_C]
    stride_p,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and sum of squared deviations of x - x[pixel 0] over pixels [begin, end).

    Taking a pixel off first keeps every partial mean small, so that the merged one is exact to its
    last bit even far from zero.
    """
    origin = tl.load(x_ptr + offs_c, mask=mask_c, other=0).to(ACC)
    mean = tl.zeros((BLOCK_C,), ACC)
    m2 = tl.zeros((BLOCK_C,), ACC)
    for first in range(begin, end, BLOCK_P):
        offs_p = first + tl.arange(0, BLOCK_P)
        mask = (offs_p < end)[:, None] & mask_c[None, :]
        offsets = offs_p.to(tl.int64)[:, None] * stride_p + offs_c[None, :]
        d = tl.load(x_ptr + offsets, mask=mask, other=0).to(ACC) - origin[None, :]
        d = tl.where(mask, d, 0)
        count = tl.cast(tl.minimum(end - first, BLOCK_P), ACC)
        tile_mean = tl.sum(d, 0) / count
        d = tl.where(mask, d - tile_mean[None, :], 0)
        mean, m2 = merged(mean, m2, tl.cast(first - begin, ACC), tile_mean, tl.sum(d * d, 0), count)
    return mean, m2


@triton.jit
def pixels_before(position, pitch, height, width):
    """Pixels of a plane before a position, rows being `pitch` positions long, at least the width.

    Positions beyond the width are no pixels.
    """
    position = tl.minimum(position, height * pitch)
    return position // pitch * width + tl.minimum(position % pitch, width)


@triton.jit
def combined_moments(
    partial_ptr,  # ACC [partials, 2 or 3, channels] of an image
    channel,  # [BLOCK_C] int64
    mask_c,  # [BLOCK_C]
    channels,
    height,
    width,
    partials,
    each,  # positions in a chunk, rows being `pitch` positions long
    pitch,
    ACC: tl.constexpr,
    OWN: tl.constexpr,  # all means are less one pixel; else before each stands what it is less
    PARTIALS: tl.constexpr,  # a power of two, at least partials
):
    """Mean and sum of squared deviations of a plane from its chunks', and what the mean is less."""
    k_each = tl.arange(0, PARTIALS)
    there = (k_each < partials)[:, None] & mask_c[None, :]
    rows: tl.constexpr = 2 if OWN else 3
    first = partial_ptr + channel
    partial = first[None, :] + (k_each * rows * channels)[:, None]
    count = pixels_before((k_each + 1) * each, pitch, height, width)
    count = (count - pixels_before(k_each * each, pitch, height, width)).to(ACC)[:, None]
    means = tl.zeros(there.shape, ACC)
    origin = tl.zeros(mask_c.shape, ACC)
    if not OWN:  # differences of pixels are exact
        origin = tl.load(first, mask=mask_c, other=0)
        means += tl.where(there, tl.load(partial, mask=there, other=0) - origin[None, :], 0)
        partial += channels
    means += tl.load(partial, mask=there, other=0)
    mean = tl.sum(count * means, 0) / tl.cast(height * width, ACC)
    d = means - mean[None, :]
    squares = tl.load(partial + channels, mask=there, other=0) + count * d * d
    return mean, tl.sum(tl.where(there, squares, 0), 0), origin


@triton.jit
def inverse_deviation(m2, pixels, EPS: tl.constexpr, ACC: tl.constexpr):
    """The rstd of a plane from its sum of squared deviations."""
    return tl.rsqrt(m2 / tl.cast(pixels, ACC) + tl.full((), EPS, ACC))


@triton.jit
def write(
    x_ptr,  # pixel 0 of the plane
    residual_ptr,  # the same of the residual, or None
    y_ptr,  # pixel 0 of the padded plane
    mean,  # [BLOCK_C]
    scale,  # [BLOCK_C]
    bias,  # [BLOCK_C]
    begin,  # of the padded pixels
    end,
    channel,  # [BLOCK_C]
    mask_c,
    height,
    width,
    stride_p,  # of x and y
    x_stride_c,
    y_stride_c,
    residual_stride_c,
    residual_stride_h,
    residual_stride_w,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write padded pixels [begin, end): each gathers the pixel that it shows."""
    padded_width = width + 2 * PAD
    for first in range(begin, end, BLOCK_P):
        offs_p = first + tl.arange(0, BLOCK_P)
        mask = (offs_p < end)[:, None] & mask_c[None, :]
        h = reflected(offs_p // padded_width, PAD, height)
        w = reflected(offs_p % padded_width, PAD, width)
        source = (h * width + w).to(tl.int64)[:, None] * stride_p + (channel * x_stride_c)[None, :]
        x = tl.load(x_ptr + source, mask=mask, other=0).to(ACC)
        value = activated((x - mean[None, :]) * scale[None, :] + bias[None, :], ACT, SLOPE)
        if residual_ptr is not None:
            source = h.to(tl.int64) * residual_stride_h + w.to(tl.int64) * residual_stride_w
            source = source[:, None] + (channel * residual_stride_c)[None, :]
            value += tl.load(residual_ptr + source, mask=mask, other=0).to(ACC)
        target = offs_p.to(tl.int64)[:, None] * stride_p + (channel * y_stride_c)[None, :]
        tl.store(y_ptr + target, value, mask=mask)


@triton.jit
def instance_norm_act_moments_kernel(
    x_ptr,  # [N, C, H, W]
    workspace_ptr,  # acc [N, chunks, 2, C]
    channels,
    pixels,
    chunks,
    chunk,  # pixels in each but the last
    stride_p,
    stride_c,
    ACC: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The first of two launches: moments of one chunk of pixels, into the workspace."""
    groups = tl.cdiv(channels, BLOCK_C)
    pid = tl.program_id(0)
    k = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    begin = k * chunk
    end = tl.minimum(begin + chunk, pixels)
    image = x_ptr + n * channels * pixels
    mean, m2 = moments(
        image, begin, end, channel * stride_c, mask_c, stride_p, ACC, BLOCK_P, BLOCK_C
    )
    partial = workspace_ptr + (n * chunks + k) * 2 * channels + channel
    tl.store(partial, mean, mask=mask_c)
    tl.store(partial + channels, m2, mask=mask_c)


@triton.jit
def instance_norm_act_fwd_kernel(
    x_ptr,  # [N, C, H, W]
    weight_ptr,  # acc [C] or None
    bias_ptr,  # acc [C] or None
    residual_ptr,  # [N, C, H, W], any strides, or None
    y_ptr,  # [N, C, H + 2 PAD, W + 2 PAD]
    mean_ptr,  # acc [N, C]: constants of z = (x - mean) * rstd * weight + bias
    rstd_ptr,  # acc [N, C]
    partial_ptr,  # acc [N, partials, 2 or 3, C] moments, not read where RESIDENT or GIVEN
    channels,
    height,
    width,
    chunks,
    partials,  # chunks of pixels whose moments are there
    each,  # positions in each of them, rows being `pitch` positions long
    pitch,
    stride_p,
    x_stride_c,
    y_stride_c,
    residual_stride_n,
    residual_stride_c,
    residual_stride_h,
    residual_stride_w,
    EPS: tl.constexpr,
    ACT: tl.constexpr,
    SLOPE: tl.constexpr,
    PAD: tl.constexpr,
    ACC: tl.constexpr,
    GIVEN: tl.constexpr,  # mean and rstd are there already
    RESIDENT: tl.constexpr,  # take the moments of the whole plane here
    OWN: tl.constexpr,  # means are of x - x[pixel 0], see combined_moments
    PARTIALS: tl.constexpr,  # a power of two, at least partials
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The whole of a plane, or, after the moments, one chunk of its padded pixels.

    The moments are those of the first launch, or of the convolution that has made x.
    """
    groups = tl.cdiv(channels, BLOCK_C)
    # Backwards: what the launch before read last is still in the cache.
    pid = tl.num_programs(0) - 1 - tl.program_id(0)
    k = pid // groups % chunks
    n = (pid // groups // chunks).to(tl.int64)
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    pixels = height * width
    padded = (height + 2 * PAD) * (width + 2 * PAD)
    image = x_ptr + n * channels * pixels
    offs_c = channel * x_stride_c
    statistic = n * channels + channel
    if GIVEN:
        mean = tl.load(mean_ptr + statistic, mask=mask_c, other=0)
        rstd = tl.load(rstd_ptr + statistic, mask=mask_c, other=0)
    elif RESIDENT:
        mean, m2 = moments(image, 0, pixels, offs_c, mask_c, stride_p, ACC, BLOCK_P, BLOCK_C)
    else:
        rows: tl.constexpr = 2 if OWN else 3
        mean, m2, origin = combined_moments(
            partial_ptr + n * partials * rows * channels,
            channel,
            mask_c,
            channels,
            height,
            width,
            partials,
            each,
            pitch,
            ACC,
            OWN,
            PARTIALS,
        )
    if not GIVEN:
        rstd = inverse_deviation(m2, pixels, EPS, ACC)
        if OWN:
            origin = tl.load(image + offs_c, mask=mask_c, other=0).to(ACC)
        mean += origin
        keep = mask_c & (k == 0)
        tl.store(mean_ptr + statistic, mean, mask=keep)
        tl.store(rstd_ptr + statistic, rstd, mask=keep)
    scale = rstd
    if weight_ptr is not None:
        scale = rstd * tl.load(weight_ptr + channel, mask=mask_c, other=0)
    bias = tl.zeros(rstd.shape, ACC)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=mask_c, other=0)
    padded_chunk = tl.cdiv(padded, chunks)
    if residual_ptr is not None:
        residual_ptr += n * residual_stride_n
    write(
        image,
        residual_ptr,
        y_ptr + n * channels * padded,
        mean,
        scale,
        bias,
        k * padded_chunk,
        tl.minimum((k + 1) * padded_chunk, padded),
        channel,
        mask_c,
        height,
        width,
        stride_p,
        x_stride_c,
        y_stride_c,
        residual_stride_c,
        residual_stride_h,
        residual_stride_w,
        ACT,
        SLOPE,
        PAD,
        ACC,
        BLOCK_P,
    )
