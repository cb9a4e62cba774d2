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
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS

ELEMENTS = 1024  # of a tile: eight of a thread's at four warps, of up to four tensors at once
# Left to itself, ptxas spills a register here and there to fit a block more on a multiprocessor;
# told how many it may use, it takes what it needs, at most three blocks' worth (Triton 3.8).
MOST_REGISTERS = 168
PROGRAMS = 256  # they fill a large GPU twice over
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


class Chunks(NamedTuple):
    """How moments cover a plane, its rows being `pitch` positions long."""

    chunks: int
    each: int  # positions in a chunk
    pitch: int
    own: bool  # of the norm's first launch; else of a convolution, see beside_norm.py


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
    own = Chunks(cover.chunks, cover.chunk, w, own=True)
    _write(operands, act, negative_slope, pad, eps, own)


def instance_norm_act_finish(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    moments: Tensor,
    each: int,
    pitch: int,
    act: int,
    negative_slope: float,
    pad: int,
    eps: float,
    y: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> None:
    """Write y, mean and rstd from moments of x; as in csrc/registration.cpp."""
    _triton.check_plane("instance_norm_act", y)
    _check_partial(x, moments, 3)
    operands = (x, weight, bias, residual, y, mean, rstd, moments)
    found = Chunks(moments.shape[1], each, pitch, own=False)
    _write(operands, act, negative_slope, pad, eps, found)


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
    _write(operands, act, negative_slope, pad, 0.0, None)


def _write(
    operands: tuple[Any, ...],  # x, weight, bias, residual, y, mean, rstd, moments
    act: int,
    negative_slope: float,
    pad: int,
    eps: float,
    moments: Chunks | None,  # None: mean and rstd are given
) -> None:
    x, _, _, residual, y, *_ = operands
    n, c, h, w = x.shape
    cover = _plan_of(x)
    stride_p, stride_c = _triton.strides(x)
    given = moments is None
    moments = moments or Chunks(1, h * w, w, own=True)
    with _triton.on(x):
        triton_fwd.instance_norm_act_fwd_kernel[(n * cover.chunks * cover.groups,)](
            *operands,
            c,
            h,
            w,
            cover.chunks,
            moments.chunks,
            moments.each,
            moments.pitch,
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
            RESIDENT=moments.own and cover.chunks == 1,
            OWN=moments.own,
            PARTIALS=_triton.power_of_two(moments.chunks),
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
    read = (x, weight, bias, mean, rstd, grad_y, grad_skip)
    written = (grad_x, grad_residual, sums)
    chunks = _plan_of(x).chunks
    # What to do in a launch: sums, writing.
    stages = [(True, True)] if chunks == 1 else [(True, False), (False, True)]
    for stage in stages:
        _backward(read, written, act, negative_slope, pad, workspace, chunks, stage, kept=True)


def instance_norm_act_bwd_finish(
    grad_y: Tensor | None,
    grad_skip: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    partial: Tensor,
    act: int,
    negative_slope: float,
    pad: int,
    grad_x: Tensor,
    grad_residual: Tensor | None,
    sums: Tensor,
) -> None:
    """Write grad_x, grad_residual and sums from partial sums; as in csrc/registration.cpp."""
    _check_partial(x, partial, 2)
    read = (x, weight, bias, mean, rstd, grad_y, grad_skip)
    written = (grad_x, grad_residual, sums)
    stage = (False, True)
    chunks = partial.shape[1]
    _backward(read, written, act, negative_slope, pad, partial, chunks, stage, kept=False)


def _check_partial(x: Tensor, partial: Tensor, rows: int) -> None:
    n, c = x.shape[:2]
    fits = partial.dim() == 4 and partial.shape == (n, partial.shape[1], rows, c)
    dense = x.is_contiguous(memory_format=torch.channels_last)
    if not fits or partial.shape[1] > MOST_CHUNKS or not dense:
        raise ValueError(
            f"instance_norm_act: what a convolution leaves must be of a channels_last image, "
            f"[{n}, at most {MOST_CHUNKS} chunks, {rows}, {c}], got {list(partial.shape)}"
        )


def _backward(
    read: tuple[Any, ...],  # x, weight, bias, mean, rstd, grad_y, grad_skip
    written: tuple[Any, ...],  # grad_x, grad_residual, sums
    act: int,
    negative_slope: float,
    pad: int,
    partial: Tensor,
    partials: int,  # of an image
    stage: tuple[bool, bool],  # sums, writing
    *,
    kept: bool,
) -> None:
    x, *_, grad_y, grad_skip = read
    n, c, h, w = x.shape
    cover = _plan_of(x)
    stride_p, stride_c = _triton.strides(x)
    with _triton.on(x):
        triton_bwd.instance_norm_act_bwd_kernel[(n * cover.chunks * cover.groups,)](
            *read,
            *written,
            partial,
            n * c,
            c,
            h,
            w,
            cover.chunks,
            cover.chunk,
            partials,
            stride_p,
            stride_c,
            _triton.strides(grad_y)[1] if grad_y is not None else 0,
            *(grad_skip.stride() if grad_skip is not None else (0,) * 4),
            ACT=act,
            SLOPE=negative_slope,
            PAD=pad,
            ACC=_triton.accumulator(x),
            SUMS=stage[0],
            WRITE=stage[1],
            KEPT=kept,
            PARTIALS=_triton.power_of_two(partials),
            BLOCK_P=cover.tile.pixels,
            BLOCK_C=cover.tile.channels,
            **_options(x),
        )
