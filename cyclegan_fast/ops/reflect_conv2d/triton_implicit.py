# SPDX-License-Identifier: MIT
"""The implicit GEMM in Triton: what is launched. Into what it is cut: triton_implicit_tiles.py.

No padded copy is made in either direction, and it serves every convolution, padded by reflection or
by zeros. Sums are in float32; float64 has no kernel. A launch takes one call or two (calls.py), the
second one's programs along the grid's second axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_implicit_tiles as cut
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormGradient, NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.triton_beside import left
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import reflect_conv2d_bwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_fwd import reflect_conv2d_fwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_load import Loaded, on_load
from cyclegan_fast.ops.reflect_conv2d.triton_splits import add_splits
from cyclegan_fast.ops.reflect_conv2d.triton_weight import reflect_conv2d_weight_kernel

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_not(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a call cannot be served, or None; of the operands only dtype counts."""
    return None if x.dtype in DTYPES else f"its products are not made in {x.dtype}"


def forward(
    calls: Sequence[Forward], padding: int, stride: int, tanh: bool, zeros: bool = False
) -> None:
    """Write each call's y, and its moments.

    Args:
        calls: one or two.
        padding: on each side, by reflection.
        stride: from window to window.
        tanh: of the result.
        zeros: pad by zeros, as Conv2d does, and not by reflection.
    """
    norms = [call.norm for call in calls]
    convolve(calls, norms, [None] * len(calls), padding, stride, tanh, zeros)


def gradient_of_input(
    calls: Sequence[OfInput], padding: int, stride: int, zeros: bool = False
) -> None:
    """Write each call's grad_x, and the sums of the norm that has made x."""
    nothing = [None] * len(calls)
    gather(calls, [call.of_norm for call in calls], nothing, nothing, padding, stride, zeros)


def gradient_of_weight(
    calls: Sequence[OfWeight], padding: int, stride: int, zeros: bool = False
) -> None:
    """Write each call's grad_weight and grad_bias, those that are not None."""
    of_norms, norms = [call.of_norm for call in calls], [call.norm for call in calls]
    correlate(calls, of_norms, norms, padding, stride, zeros)


def workspace(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the float32 elements that one call of gradient_of_weight needs.

    Args:
        out_shape: [N, C_out, OH, OW], of all groups together.
        weight_shape: [C_out, C, KH, KW], of one.
        groups: layers, see calls.OfWeight.
    """
    whole = weight_shape.numel() + weight_shape[0]
    # Alone, the bias may be cut into more splits.
    return max(
        cut.split_elements(out_shape, shape, elements, groups)
        for elements, shape in ((whole, weight_shape), (out_shape[1], cut.of_bias(out_shape)))
    )


def weight_launches(out_shape: torch.Size, weight_shape: torch.Size, groups: int = 1) -> int:
    """Return the launches of gradient_of_weight: two where splits have to be added up.

    It is the number of the 16-bit types; float32 may have one split where they have several.

    Args:
        out_shape: as workspace's.
        weight_shape: as workspace's.
        groups: as workspace's.
    """
    return 1 + (cut.split_elements(out_shape, weight_shape, 1, groups) > 0)


def moments_cover(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int, zeros: bool = False
) -> tuple[int, int, int]:
    """Return the chunks of an image's moments, positions in each, and positions in a row."""
    height, width = operands.windows(x_shape, weight_shape, padding, stride)
    return *cut.chunks_of_positions(height * width), width


def sums_chunks(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int, zeros: bool = False
) -> int:
    """Return the chunks of the sums over an image's gradient."""
    return cut.chunks_of_rectangles(x_shape[2], x_shape[3], stride)


def convolve(
    calls: Sequence[Forward],
    loads: Sequence[Loaded],
    norms: Sequence[NormOfInput | None],
    padding: int,
    stride: int,
    tanh: bool,
    zeros: bool,
) -> None:
    """Launch the forward kernel, whose y may be the gradient of what a norm has made.

    Args:
        calls: one or two, whose own norm is not looked at.
        loads: of each, what is applied to x.
        norms: of each, the norm that sums are wanted for.
        padding: as forward's.
        stride: as forward's.
        tanh: as forward's.
        zeros: as forward's.
    """
    call, other = calls[0], calls[-1]
    x, weight, y = call.x, call.weight, call.y
    operands.check_pixels(x, y)
    tiles, pixels = cut.tiles_of(x), y.shape[2] * y.shape[3]
    block_p = min(tiles.pixels, cut.side_of(pixels))
    block_o = min(tiles.channels, cut.side_of(y.shape[1]))
    chunks, each = triton.cdiv(pixels, block_p), block_p
    if call.moments is not None or norms[0] is not None:
        chunks, each = cut.chunks_of_positions(pixels)
    programs = len(x) * chunks * triton.cdiv(y.shape[1], block_o)
    with _triton.on(x):
        reflect_conv2d_fwd_kernel[(programs, len(calls))](
            *(t for c in (call, other) for t in (c.x, c.weight, c.bias, c.y)),
            *operands.sizes(x, y),
            *operands.strides(x, y),
            *operands.weight_strides(weight),
            chunks,
            each // block_p,
            **left([c.moments for c in calls], norms, chunks, may_mask=True),
            **on_load("load", [c.x for c in calls], loads, [None] * len(calls)),
            **operands.options(padding, stride, weight.shape, zeros, x),
            **operands.resources(tiles.warps, tiles.stages),
            TANH=tanh,
            BLOCK_P=block_p,
            BLOCK_O=block_o,
            BLOCK_C=cut.inner_of(tiles, x.shape[1], isinstance(loads[0], NormGradient)),
        )


def gather(
    calls: Sequence[OfInput],
    loads: Sequence[Loaded],
    biases: Sequence[Tensor | None],
    moments: Sequence[Tensor | None],
    padding: int,
    stride: int,
    zeros: bool,
) -> None:
    """Launch the gradient of the input, which may be a transposed convolution's result.

    Args:
        calls: one or two, whose own of_norm is not looked at.
        loads: of each, what is applied to grad_y.
        biases: of each, of a transposed convolution.
        moments: of each, of a transposed convolution's result.
        padding: as forward's.
        stride: as forward's.
        zeros: as forward's.
    """
    call, other = calls[0], calls[-1]
    grad_y, weight, grad_x = call.grad_y, call.weight, call.grad_x
    operands.check_pixels(grad_x, grad_y)
    tiles, (n, channels, height, width) = cut.tiles_of(grad_x), grad_x.shape
    block_h, block_w, across = cut.rectangle(height, width, stride, tiles, cut.TILE_WIDTH)
    in_all = cut.rectangles(height, width, stride, tiles)
    chunks = in_all
    if call.norm is not None:
        chunks = cut.chunks_of_rectangles(height, width, stride)
    each = triton.cdiv(in_all, chunks)
    if moments[0] is not None:
        chunks, rows = cut.chunks_of_rows(height, width, stride)
        block_h, block_w, across = cut.rectangle(height, width, stride, tiles, tiles.pixels)
        each = stride * stride * across * (rows // block_h)
    block_c = min(tiles.channels, cut.side_of(channels))
    with _triton.on(grad_x):
        reflect_conv2d_bwd_kernel[(n * chunks * triton.cdiv(channels, block_c), len(calls))](
            *_gathered(call, biases[0]),
            *_gathered(other, biases[-1]),
            *operands.sizes(grad_x, grad_y),
            *operands.strides(grad_x, grad_y),
            *operands.weight_strides(weight),
            chunks,
            each,
            **left(moments, [c.norm for c in calls], chunks, may_mask=True),
            **on_load("load", [c.grad_y for c in calls], loads, [c.y for c in calls]),
            **operands.options(padding, stride, weight.shape, zeros, grad_x),
            **operands.resources(tiles.warps, tiles.stages),
            BLOCK_H=block_h,
            BLOCK_W=block_w,
            BLOCK_C=block_c,
            BLOCK_O=cut.inner_of(tiles, grad_y.shape[1], isinstance(loads[0], NormGradient)),
        )


def _gathered(call: OfInput, bias: Tensor | None) -> tuple[Tensor | None, ...]:
    return call.grad_y, call.weight, bias, call.grad_x


def correlate(
    calls: Sequence[OfWeight],
    y_loads: Sequence[Loaded],
    x_loads: Sequence[Loaded],
    padding: int,
    stride: int,
    zeros: bool,
) -> None:
    """Launch the gradient of the weight, and what adds up its splits.

    Args:
        calls: one or two, whose own norm and of_norm are not looked at.
        y_loads: of each, what is applied to grad_y.
        x_loads: of each, what is applied to x.
        padding: as forward's.
        stride: as forward's.
        zeros: as forward's.
    """
    call, other = calls[0], calls[-1]
    grad_y, x, groups = call.grad_y, call.x, call.groups
    operands.check_pixels(x, grad_y)
    if len(x) % groups:
        raise ValueError(f"reflect_conv2d: {len(x)} images must be of {groups} layers alike")
    shape, strides = cut.of_bias(grad_y.shape), (0, 0)
    if call.grad_weight is not None:
        weight = call.grad_weight if groups == 1 else call.grad_weight[0]
        shape, strides = weight.shape, operands.weight_strides(weight)
    tiles, by_image = cut.tiles_of(x), (y_loads[0] or x_loads[0]) is not None
    chunk, splits = cut.splits_of(grad_y.shape, shape, tiles, groups, by_image)
    grid = (splits * cut.programs_of(shape, tiles), len(calls), groups)
    xs, ys = [c.x for c in calls], [c.grad_y for c in calls]
    with _triton.on(x):
        reflect_conv2d_weight_kernel[grid](
            *_correlated(call, splits),
            *_correlated(other, splits),
            x.shape[0] // groups,
            *operands.sizes(x, grad_y),
            *operands.strides(x, grad_y),
            *strides,
            chunk,
            **on_load("y", ys, y_loads, [c.y for c in calls], groups),
            **on_load("x", xs, x_loads, [None] * len(calls), groups),
            BY_IMAGE=by_image,
            DIRECT=splits == 1,
            WEIGHT=call.grad_weight is not None,
            BIAS=call.grad_bias is not None,
            **operands.options(padding, stride, shape, zeros, x),
            **operands.resources(tiles.warps, tiles.stages),
            BLOCK_P=tiles.inner,
            BLOCK_O=min(tiles.channels, cut.side_of(shape[0])),
            BLOCK_C=min(tiles.channels, cut.side_of(shape[1])),
        )
        if splits > 1:
            add_splits(calls, splits)


def _correlated(call: OfWeight, splits: int) -> tuple[Tensor | None, ...]:
    written = (call.grad_weight, call.grad_bias) if splits == 1 else (call.workspace,) * 2
    return call.grad_y, call.x, *written
