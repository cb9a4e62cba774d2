# SPDX-License-Identifier: MIT
"""What stands between two convolutions in Triton where a norm is applied on load.

A convolution leaves moments, or sums, by chunks of each image; the one that reads its result takes
them of the plane. Mean and rstd are those of instance_norm_act's kernels, bit for bit: by their
functions, in their tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops._triton import of_call
from cyclegan_fast.ops.instance_norm_act import triton_kernels as norm
from cyclegan_fast.ops.instance_norm_act.triton_bwd import combined_sums
from cyclegan_fast.ops.instance_norm_act.triton_fwd import combined_moments, inverse_deviation
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS
from cyclegan_fast.ops.reflect_conv2d.calls import Statistics, Sums

WARPS = 4  # as the norm's kernels have: on a GPU the order of a sum depends on it


def statistics(calls: Sequence[Statistics]) -> None:
    """Write each call's mean and rstd.

    Args:
        calls: one or two, of results of the same sizes.

    Raises:
        ValueError: a tensor has not the shape or the dtype that it must have.
    """
    call, other = calls[0], calls[-1]
    n, chunks, _, channels = call.moments.partial.shape
    for each in calls:
        _check("moments", each.moments.partial, (n, chunks, 3, channels))
        _check("mean", each.mean, (n, channels))
        _check("rstd", each.rstd, (n, channels))
    block_c = _block(call.height * call.width, channels)
    with _triton.on(call.mean):
        reflect_conv2d_norm_statistics_kernel[(n * triton.cdiv(channels, block_c), len(calls))](
            *(t for c in (call, other) for t in (c.moments.partial, c.mean, c.rstd)),
            channels,
            call.height,
            call.width,
            chunks,
            call.moments.each,
            call.moments.pitch,
            EPS=call.eps,
            PARTIALS=_triton.power_of_two(chunks),
            BLOCK_C=block_c,
            num_warps=WARPS,
            maxnreg=norm.MOST_REGISTERS,
        )


def sums(calls: Sequence[Sums]) -> None:
    """Write each call's sums.

    Args:
        calls: one or two, of the same sizes.

    Raises:
        ValueError: a tensor has not the shape or the dtype that it must have.
    """
    call, other = calls[0], calls[-1]
    n, chunks, _, channels = call.partial.shape
    for each in calls:
        _check("partial", each.partial, (n, chunks, 2, channels))
        _check("sums", each.sums, (n, 2, channels))
    block_c = _block(norm.ELEMENTS, channels)
    with _triton.on(call.sums):
        reflect_conv2d_norm_sums_kernel[(n * triton.cdiv(channels, block_c), len(calls))](
            *call,
            *other,
            channels,
            chunks,
            PARTIALS=_triton.power_of_two(chunks),
            BLOCK_C=block_c,
            num_warps=WARPS,
            maxnreg=norm.MOST_REGISTERS,
        )


def _block(pixels: int, channels: int) -> int:
    return _triton.tile(pixels, channels, True, norm.ELEMENTS).channels


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    dense = value.is_contiguous() and value.dtype == torch.float32
    if value.shape != shape or not dense or (len(shape) == 4 and shape[1] > MOST_CHUNKS):
        raise ValueError(
            f"reflect_conv2d: {name} must be float32 {list(shape)}, dense, of at most "
            f"{MOST_CHUNKS} chunks, got {value.dtype} {list(value.shape)}"
        )


@triton.jit
def reflect_conv2d_norm_statistics_kernel(
    partial_ptr,  # float32 [N, chunks, 3, channels]
    mean_ptr,  # float32 [N, channels]
    rstd_ptr,  # float32 [N, channels]
    other_partial_ptr,  # from here on the second call's
    other_mean_ptr,
    other_rstd_ptr,
    channels,
    height,
    width,
    chunks,
    each,  # positions in a chunk, rows being `pitch` positions long
    pitch,
    EPS: tl.constexpr,
    PARTIALS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Mean and rstd of BLOCK_C planes of an image."""
    groups = tl.cdiv(channels, BLOCK_C)
    pid = tl.program_id(0)
    n = (pid // groups).to(tl.int64)
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    mean, m2, origin = combined_moments(
        of_call(partial_ptr, other_partial_ptr) + n * chunks * 3 * channels,
        channel,
        mask_c,
        channels,
        height,
        width,
        chunks,
        each,
        pitch,
        tl.float32,
        False,
        PARTIALS,
    )
    rstd = inverse_deviation(m2, height * width, EPS, tl.float32)
    statistic = n * channels + channel
    tl.store(of_call(mean_ptr, other_mean_ptr) + statistic, mean + origin, mask=mask_c)
    tl.store(of_call(rstd_ptr, other_rstd_ptr) + statistic, rstd, mask=mask_c)


@triton.jit
def reflect_conv2d_norm_sums_kernel(
    partial_ptr,  # float32 [N, chunks, 2, channels]
    sums_ptr,  # float32 [N, 2, channels]
    other_partial_ptr,  # from here on the second call's
    other_sums_ptr,
    channels,
    chunks,
    PARTIALS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Both sums over BLOCK_C planes of an image."""
    groups = tl.cdiv(channels, BLOCK_C)
    pid = tl.program_id(0)
    n = (pid // groups).to(tl.int64)
    channel = (pid % groups * BLOCK_C + tl.arange(0, BLOCK_C)).to(tl.int64)
    mask_c = channel < channels
    partial = of_call(partial_ptr, other_partial_ptr) + n * chunks * 2 * channels
    s1, s2 = combined_sums(partial, channel, mask_c, channels, chunks, PARTIALS)
    target = of_call(sums_ptr, other_sums_ptr) + n * 2 * channels + channel
    tl.store(target, s1, mask=mask_c)
    tl.store(target + channels, s2, mask=mask_c)
