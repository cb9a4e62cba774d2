# SPDX-License-Identifier: MIT
"""instance_norm_act in Triton: the launchers; the kernels stand in triton_fwd and triton_bwd.

Where one program can take all pixels of some channels, and there are programs enough to fill a GPU,
one launch does everything and memory is read once. Else an image is split into chunks of pixels:
the first launch leaves two partial results per chunk and channel in the workspace, and every
program of the second one combines them, in the same order, before it writes its own chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.instance_norm_act import triton_bwd, triton_fwd

ELEMENTS = 1024  # of a tile: eight of a thread's at four warps, of up to four tensors at once
# Left to itself, ptxas spills a register here and there to fit a block more on a multiprocessor;
# told how many it may use, it takes what it needs, at most three blocks' worth (Triton 3.8).
MOST_REGISTERS = 168
# Programs that fill a large GPU twice over; and the most partial results that each combines.
PROGRAMS = 256
MOST_CHUNKS = 64
# Elements of a plane (of the planes side by side in a tile) that one program may take alone: in 16
# bits they are 64 KB, still in the multiprocessor's cache when they are read again.
RESIDENT = 32 << 10


class Plan(NamedTuple):
    """How a launch covers the images."""

    tile: _triton.Tile
    groups: int  # of channels, in an image
    chunks: int  # of pixels, in a plane; 1: resident
    chunk: int  # pixels in each but the last


def plan(n: int, c: int, pixels: int, channels_last: bool) -> Plan:
    """Decide from the sizes alone, so that results are the same on every GPU."""
    tile = _triton.tile(pixels, c, channels_last, ELEMENTS)
    groups = triton.cdiv(c, tile.channels)
    tiles = triton.cdiv(pixels, tile.pixels)
    resident = pixels * tile.channels <= RESIDENT and n * groups >= PROGRAMS // 4
    if resident or tiles == 1:
        return Plan(tile, groups, 1, pixels)
    wanted = min(max(triton.cdiv(PROGRAMS, n * groups), 2), tiles, MOST_CHUNKS)
    chunk = triton.cdiv(tiles, wanted) * tile.pixels
    return Plan(tile, groups, triton.cdiv(pixels, chunk), chunk)


def instance_norm_act_workspace(
    n: int, c: int, h: int, w: int, channels_last: bool, _device: str
) -> int:
    """Return how many elements of the accumulator's dtype the partial results take."""
    chunks = plan(n, c, h * w, channels_last).chunks
    return n * chunks * 2 * c if chunks > 1 else 0


def _options(x: Tensor) -> dict[str, int]:
    """Launch options: twice the threads for float64, whose values take two registers each."""
    return {"num_warps": 8 if x.dtype == torch.float64 else 4, "maxnreg": MOST_REGISTERS}


def _plan_of(x: Tensor) -> Plan:
    n, c, h, w = x.shape
    return plan(n, c, h * w, _triton.is_channels_last(x))


def instance_norm_act_fwd(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    act: int,
    negative_slope: float,
    pad: int,
    eps: float,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
    workspace: Tensor,
) -> None:
    """Write y, mean and rstd; shapes and dtypes as in csrc/registration.cpp."""
    _triton.check_plane("instance_norm_act", y)
    n, c, h, w = x.shape
    cover = _plan_of(x)
    if cover.chunks > 1:
        stride_p, stride_c = _triton.strides(x)
        with _triton.on(x):
            triton_fwd.instance_norm_act_moments_kernel[(n * cover.chunks * cover.groups,)](
                x,
                workspace,
                c,
                h * w,
                cover.chunks,
                cover.chunk,
                stride_p,
                stride_c,
                ACC=_triton.accumulator(x),
                BLOCK_P=cover.tile.pixels,
                BLOCK_C=cover.tile.channels,
                **_options(x),
            )
    operands = (x, weight, bias, residual, y, mean, rstd, workspace)
    _write(operands, act, negative_slope, pad, eps, given=False)


def instance_norm_act_apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    act: int,
    negative_slope: float,
    pad: int,
    y: Tensor,
) -> None:
    """Write y from mean and rstd; shapes and dtypes as in csrc/registration.cpp."""
    _triton.check_plane("instance_norm_act", y)
    operands = (x, weight, bias, residual, y, mean, rstd, None)
    _write(operands, act, negative_slope, pad, 0.0, given=True)


def _write(
    operands: tuple[Any, ...],  # x, weight, bias, residual, y, mean, rstd, workspace
    act: int,
    negative_slope: float,
    pad: int,
    eps: float,
    *,
    given: bool,
) -> None:
    x, _, _, residual, y, *_ = operands
    n, c, h, w = x.shape
    cover = _plan_of(x)
    stride_p, stride_c = _triton.strides(x)
    with _triton.on(x):
        triton_fwd.instance_norm_act_fwd_kernel[(n * cover.chunks * cover.groups,)](
            *operands,
            c,
            h,
            w,
            cover.chunks,
            cover.chunk,
            stride_p,
            stride_c,
            _triton.strides(y)[1],
            *(residual.stride() if residual is not None else (0,) * 4),
            EPS=eps,
            ACT=act,
            SLOPE=negative_slope,
            PAD=pad,
            ACC=_triton.accumulator(x),
            GIVEN=given,
            RESIDENT=cover.chunks == 1,
            CHUNKS=_triton.power_of_two(cover.chunks),
            BLOCK_P=cover.tile.pixels,
            BLOCK_C=cover.tile.channels,
            **_options(x),
        )


def instance_norm_act_bwd(
    grad_y: Tensor | None,
    grad_skip: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    act: int,
    negative_slope: float,
    pad: int,
    grad_x: Tensor,
    grad_residual: Tensor | None,
    sums: Tensor,
    workspace: Tensor,
) -> None:
    """Write grad_x, grad_residual and sums; shapes and dtypes as in csrc/registration.cpp."""
    n, c, h, w = x.shape
    cover = _plan_of(x)
    stride_p, stride_c = _triton.strides(x)
    resident = cover.chunks == 1
    with _triton.on(x):
        # What to do in one launch: sums, writing.
        for sums_too, writes in [(True, True)] if resident else [(True, False), (False, True)]:
            triton_bwd.instance_norm_act_bwd_kernel[(n * cover.chunks * cover.groups,)](
                x,
                weight,
                bias,
                mean,
                rstd,
                grad_y,
                grad_skip,
                grad_x,
                grad_residual,
                sums,
                workspace,
                n * c,
                c,
                h,
                w,
                cover.chunks,
                cover.chunk,
                stride_p,
                stride_c,
                _triton.strides(grad_y)[1] if grad_y is not None else 0,
                *(grad_skip.stride() if grad_skip is not None else (0,) * 4),
                ACT=act,
                SLOPE=negative_slope,
                PAD=pad,
                ACC=_triton.accumulator(x),
                SUMS=sums_too,
                WRITE=writes,
                CHUNKS=_triton.power_of_two(cover.chunks),
                BLOCK_P=cover.tile.pixels,
                BLOCK_C=cover.tile.channels,
                **_options(x),
            )
