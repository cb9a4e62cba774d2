# SPDX-License-Identifier: MIT
"""Convolutions between many channels and at most four in Triton, factored by the kernel's rows.

Tensor cores multiply at least eight columns by sixteen, so as an implicit GEMM three channels are
mostly nothing. Here taps fill the side of the few channels: see triton_factored_wide.py for results
of many channels, triton_factored_thin.py for results of few, triton_factored_weight.py for the
weight's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_factored_plan as plan
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.triton_beside import left
from cyclegan_fast.ops.reflect_conv2d.triton_factored_thin import reflect_conv2d_factored_sum_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_factored_weight import (
    reflect_conv2d_factored_weight_kernel,
)
from cyclegan_fast.ops.reflect_conv2d.triton_factored_wide import (
    reflect_conv2d_factored_bwd_kernel,
    reflect_conv2d_factored_fwd_kernel,
)
from cyclegan_fast.ops.reflect_conv2d.triton_splits import add_splits

MOST_THIN = 4  # channels
LEAST_WIDE, MOST_WIDE = 16, 64
LEAST_ROWS, MOST_ROWS, MOST_COLUMNS = 5, 7, 8  # of the kernel


class _Sum(NamedTuple):
    x: Tensor  # of many channels, whose rows are summed
    act: Tensor  # the result whose gradient it is, or x
    weight: Tensor
    bias: Tensor | None
    y: Tensor  # of few channels, written


def why_not(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a convolution is not served, or None."""
    del padding
    few, many = sorted(weight.shape[:2])
    rows, columns = weight.shape[2:]
    if few > MOST_THIN or not LEAST_WIDE <= many <= MOST_WIDE:
        return (
            f"one side must have at most {MOST_THIN} channels and the other {LEAST_WIDE} to "
            f"{MOST_WIDE}, got {few} and {many}"
        )
    if stride != 1:
        return f"stride must be 1, got {stride}"
    if not LEAST_ROWS <= rows <= MOST_ROWS or columns > MOST_COLUMNS:
        return (
            f"the kernel must have {LEAST_ROWS} to {MOST_ROWS} rows and at most {MOST_COLUMNS} "
            f"columns, got {rows} x {columns}"
        )
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "x must be channels_last"
    return None


def forward(calls: Sequence[Forward], padding: int, stride: int, tanh: bool) -> None:
    """Write the results of one or two calls, and their moments where asked for."""
    del stride  # 1
    x, weight, _, y, moments, *_ = calls[0]
    operands.check_pixels(x, y)
    if _few_results(weight):
        if moments is not None:
            raise ValueError("reflect_conv2d: a result of few channels has no moments")
        sums = [_Sum(call.x, call.x, call.weight, call.bias, call.y) for call in calls]
        _sum(sums, padding, tanh=tanh)
        return
    rows, chunks = plan.rows_of_chunk(y.shape[2])
    most = plan.TILES[x.element_size()].channels
    with _triton.on(x):
        # From tensor memory (sm_100) a thread takes a pixel's channels: moments of 64 spill.
        block_o = plan.block(y.shape[1], most // 2 if _generation() in (10, 11) else most)
        programs = len(x) * chunks * triton.cdiv(y.shape[1], block_o)
        reflect_conv2d_factored_fwd_kernel[(programs, len(calls))](
            *_both(calls, "x", "weight", "bias", "y", "moments"),
            *x.shape[2:],
            *y.shape[1:],
            *_triton.strides(y),
            *operands.weight_strides(weight),
            chunks,
            rows * triton.cdiv(y.shape[3], plan.tile_width(y.shape[3])),
            TANH=tanh,
            BLOCK_O=block_o,
            **_options(x, x.shape[1], weight, padding, y.shape[3]),
        )


def gradient_of_input(calls: Sequence[OfInput], padding: int, stride: int) -> None:
    """Write the gradients of one or two images, and the sums of their norms where asked for."""
    del stride
    grad_y, y, weight, grad_x, norm, *_ = calls[0]
    operands.check_pixels(grad_x, grad_y)
    names = ("grad_y", "grad_y" if y is None else "y")
    if not _few_results(weight):
        if norm is not None:
            raise ValueError("reflect_conv2d: an image of few channels has been made by no norm")
        sums = [
            _Sum(c.grad_y, operands.either(c.y, c.grad_y), c.weight, None, c.grad_x) for c in calls
        ]
        _sum(sums, padding, turned=True, derivative=y is not None)
        return
    n, channels, height, width = grad_x.shape
    count, chunks = plan.tiles_of_chunk(height, width)
    most = plan.TILES[grad_x.element_size()].channels
    # Mirror images take the registers of half the channels.
    block_c = plan.block(channels, most if padding == 0 else most // 2)
    norms = [call.norm for call in calls]
    with _triton.on(grad_x):
        reflect_conv2d_factored_bwd_kernel[
            (n * chunks * triton.cdiv(channels, block_c), len(calls))
        ](
            *_both(calls, *names, "weight", "grad_x"),
            channels,
            height,
            width,
            *grad_y.shape[2:],
            *operands.weight_strides(weight),
            chunks=chunks,
            count=count,
            **left([None], norms, chunks),
            TANH=y is not None,
            BLOCK_C=block_c,
            **_options(grad_x, grad_y.shape[1], weight, padding, width),
        )


def gradient_of_weight(calls: Sequence[OfWeight], padding: int, stride: int) -> None:
    """Write the gradients of one or two weights and biases."""
    del stride
    grad_y, y, x, grad_weight, grad_bias, *_ = calls[0]
    _check_groups(calls[0].groups)
    operands.check_pixels(x, grad_y)
    n, channels, height, width = x.shape
    _, out_channels, out_height, out_width = grad_y.shape
    kernel = height + 2 * padding - out_height + 1, width + 2 * padding - out_width + 1
    few_results = out_channels < channels
    many, few = (x, grad_y) if few_results else (grad_y, x)
    strides = (0, 0, 0)
    if grad_weight is not None:
        strides = _weight_strides(grad_weight, few_results)
    tiles = plan.TILES[x.element_size()]
    rows, splits = plan.splits(grad_y.shape, (out_channels, channels, *kernel), tiles.weight_pixels)
    block_c = plan.block(many.shape[1], tiles.weight_channels)
    block_r = min(tiles.weight_rows, _triton.power_of_two(kernel[0]))
    groups = 1 if grad_weight is None else triton.cdiv(kernel[0], block_r)
    if grad_weight is not None or not few_results:
        groups *= triton.cdiv(many.shape[1], block_c)
    with _triton.on(x):
        reflect_conv2d_factored_weight_kernel[(splits * groups, len(calls))](
            *_both(calls, "grad_y", "grad_y" if y is None else "y", "x", "workspace"),
            n,
            many.shape[1],
            height,
            width,
            out_height,
            out_width,
            *_triton.strides(many),
            *strides,
            rows,
            WEIGHT=grad_weight is not None,
            BIAS=grad_bias is not None,
            TANH=y is not None,
            FEW_RESULTS=few_results,
            THIN=few.shape[1],
            PAD=padding,
            KH=kernel[0],
            KW=kernel[1],
            PRECISION=operands.precision(x),
            BLOCK_P=tiles.weight_pixels,
            BLOCK_C=block_c,
            BLOCK_R=block_r,
            SPAN=plan.side(kernel[1] * few.shape[1]),
            SLOTS=_triton.power_of_two(few.shape[1]),
            **operands.resources(plan.WARPS, 1),
        )
        add_splits(calls, splits, plan.SUM_BLOCK)


def workspace(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the float32 elements that one call of gradient_of_weight needs."""
    _check_groups(groups)
    elements = weight_shape[0] * (1 + weight_shape[1] * weight_shape[2] * weight_shape[3])
    return elements * max(
        plan.splits(out_shape, weight_shape, t.weight_pixels)[1] for t in plan.TILES.values()
    )


def weight_launches(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the launches of gradient_of_weight: splits are always added up by a second one."""
    del out_shape, weight_shape
    _check_groups(groups)
    return 2


def moments_cover(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int
) -> tuple[int, int, int]:
    """Return chunks, each and pitch of the moments of one image, see beside_norm.Moments."""
    height, width = operands.windows(x_shape, weight_shape, padding, stride)
    rows, chunks = plan.rows_of_chunk(height)
    return chunks, rows * plan.WIDE_HEIGHT * width, width


def sums_chunks(x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int) -> int:
    """Return the chunks of the sums of one image, see beside_norm.NormOfInput."""
    del weight_shape, padding, stride
    return plan.tiles_of_chunk(*x_shape[2:])[1]


def _sum(
    calls: Sequence[_Sum],
    padding: int,
    tanh: bool = False,
    turned: bool = False,
    derivative: bool = False,
) -> None:
    x, _, weight, _, y = calls[0]
    n, thin, height, width = y.shape
    channels = x.shape[1]
    tiles = plan.TILES[x.element_size()]
    block_w = tiles.sum_pixels
    strips = triton.cdiv(width, block_w - weight.shape[3] + 1)
    rows = plan.rows_of_sum(n * strips, height)
    slots = _triton.power_of_two(thin)
    with _triton.on(x):
        rolled = not turned and _rolls(x)
        reflect_conv2d_factored_sum_kernel[(n * strips * triton.cdiv(height, rows), len(calls))](
            *_both(calls, *_Sum._fields),
            channels,
            *x.shape[2:],
            height,
            width,
            *_triton.strides(x),
            *_weight_strides(weight, not turned),
            rows,
            TANH=tanh,
            TURNED=turned,
            DERIVATIVE=derivative,
            THIN=thin,
            PAD=padding,
            KH=weight.shape[2],
            KW=weight.shape[3],
            PRECISION=operands.precision(x),
            BLOCK_W=block_w,
            ROLLED=rolled,
            BLOCK_C=plan.side(channels) if rolled else tiles.sum_inner,
            TAPS=max(_triton.power_of_two(weight.shape[3]), plan.LEAST // slots),
            SLOTS=slots,
            **operands.resources(plan.SUM_WARPS, 2),
        )


def _rolls(x: Tensor) -> bool:
    """Return whether tensor cores read both operands from shared memory, where they all fit."""
    return x.element_size() == 2 and _generation() == 9


def _generation() -> int:
    """Return the first part of the device's compute capability; of the interpreter, sm_90's."""
    return 9 if _triton.INTERPRETED else driver.active.get_current_target().arch // 10


def _options(x: Tensor, thin: int, weight: Tensor, padding: int, width: int) -> dict[str, Any]:
    """Return what the kernels of results of many channels share, such a result being so wide."""
    return {
        "THIN": thin,
        "PAD": padding,
        "KH": weight.shape[2],
        "KW": weight.shape[3],
        "PRECISION": operands.precision(x),
        "BLOCK_H": plan.WIDE_HEIGHT,
        "BLOCK_W": plan.tile_width(width),
        "SPAN": plan.side(weight.shape[3] * thin),
        **operands.resources(plan.WARPS, 1),
    }


def _check_groups(groups: int) -> None:
    if groups != 1:
        raise ValueError(
            f"reflect_conv2d: factored makes the gradient of one layer's weight, got {groups} "
            "groups: ask for each layer alone"
        )


def _few_results(weight: Tensor) -> bool:
    return weight.shape[0] < weight.shape[1]


def _weight_strides(weight: Tensor, few_results: bool) -> tuple[int, int, int]:
    """Return the distances between the many channels, between the few, and between taps."""
    to_result = weight.shape[1:].numel()
    to_channel, to_tap = operands.weight_strides(weight)
    return (to_channel, to_result, to_tap) if few_results else (to_result, to_channel, to_tap)


def _both(calls: Sequence[Any], *names: str) -> list[Any]:
    """Return the operands of those names, of the first call and of the last, in turns."""
    return [getattr(call, name) for name in names for call in (calls[0], calls[-1])]
