# SPDX-License-Identifier: MIT
"""The implicit GEMM in Triton: what is launched, in tiles of which size.

No padded copy is made in either direction, and it serves every convolution, padded by reflection or
by zeros. Sums are in float32; float64 has no kernel. A launch takes one call or two (calls.py), the
second one's programs along the grid's second axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.beside_norm import NormOfInput
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.triton_beside import left
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import reflect_conv2d_bwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_fwd import reflect_conv2d_fwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_splits import add_splits
from cyclegan_fast.ops.reflect_conv2d.triton_weight import reflect_conv2d_weight_kernel


class Tiles(NamedTuple):
    """Sides of the tiles that tl.dot multiplies."""

    pixels: int  # of a result that is an image
    channels: int  # of a result
    inner: int  # of what is summed over
    warps: int
    stages: int  # of loads that are under way


# By an element's bytes and whether channels lie side by side, for if not, offsets take the
# registers that larger tiles would; those of float32 are taken by its products. On sm_80 to sm_120
# none spills.
TILES = {
    (2, True): Tiles(128, 64, 64, 8, 3),
    (2, False): Tiles(64, 64, 32, 4, 3),
    (4, True): Tiles(64, 32, 32, 4, 1),
    (4, False): Tiles(64, 32, 32, 4, 1),
}
LEAST = 16  # tl.dot's smallest side
TILE_WIDTH = 16  # pixels side by side in a tile of backward, if the image has as many
PROGRAMS = 512  # wanted of the weight's gradient: a few for each of 132 multiprocessors
MOST_CHUNKS = 64  # of an image, all of which each program of a norm reads
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
    convolve(calls, [None] * len(calls), padding, stride, tanh, zeros)


def gradient_of_input(
    calls: Sequence[OfInput], padding: int, stride: int, zeros: bool = False
) -> None:
    """Write each call's grad_x, and the sums of the norm that has made x."""
    nothing = [None] * len(calls)
    gather(calls, nothing, nothing, padding, stride, zeros)


def gradient_of_weight(
    calls: Sequence[OfWeight], padding: int, stride: int, zeros: bool = False
) -> None:
    """Write each call's grad_weight and grad_bias, those that are not None."""
    call, other = calls[0], calls[-1]
    grad_y, x, weight = call.grad_y, call.x, call.grad_weight
    operands.check_pixels(x, grad_y)
    shape = of_bias(grad_y.shape) if weight is None else weight.shape
    tiles = tiles_of(x)
    chunk, splits = splits_of(grad_y.shape, shape, tiles)
    with _triton.on(x):
        reflect_conv2d_weight_kernel[(splits * _programs(shape, tiles), len(calls))](
            *_summed(call),
            *_summed(other),
            x.shape[0],
            *operands.sizes(x, grad_y),
            *operands.strides(x, grad_y),
            *((0, 0) if weight is None else operands.weight_strides(weight)),
            chunk,
            WEIGHT=weight is not None,
            BIAS=call.grad_bias is not None,
            **operands.options(call.y is not None, padding, stride, shape, zeros, x),
            **operands.resources(tiles.warps, tiles.stages),
            BLOCK_P=tiles.inner,
            BLOCK_O=min(tiles.channels, side_of(shape[0])),
            BLOCK_C=min(tiles.channels, side_of(shape[1])),
        )
        add_splits(calls, splits)


def _summed(call: OfWeight) -> tuple[Tensor, ...]:
    return call.grad_y, operands.either(call.y, call.grad_y), call.x, call.workspace


def workspace(out_shape: torch.Size, weight_shape: torch.Size) -> int:
    """Return the float32 elements that one call of gradient_of_weight needs."""
    whole = weight_shape.numel() + weight_shape[0]
    # Alone, the bias may be cut into more splits.
    return max(
        elements * splits_of(out_shape, shape, tiles)[1]
        for elements, shape in ((whole, weight_shape), (out_shape[1], of_bias(out_shape)))
        for tiles in TILES.values()
    )


def moments_cover(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int, zeros: bool = False
) -> tuple[int, int, int]:
    """Return the chunks of an image's moments, positions in each, and positions in a row."""
    height, width = operands.windows(x_shape, weight_shape, padding, stride)
    return *chunks_of_positions(height * width), width


def sums_chunks(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int, zeros: bool = False
) -> int:
    """Return the chunks of the sums over an image's gradient."""
    tiles = min(_rectangles(x_shape[2], x_shape[3], stride, each) for each in TILES.values())
    return triton.cdiv(tiles, triton.cdiv(tiles, MOST_CHUNKS))


def convolve(
    calls: Sequence[Forward],
    norms: Sequence[NormOfInput | None],
    padding: int,
    stride: int,
    tanh: bool,
    zeros: bool,
) -> None:
    """Launch the forward kernel, whose y may be the gradient of what a norm has made."""
    call, other = calls[0], calls[-1]
    x, weight, y = call.x, call.weight, call.y
    operands.check_pixels(x, y)
    tiles, pixels = tiles_of(x), y.shape[2] * y.shape[3]
    block_p = min(tiles.pixels, side_of(pixels))
    block_o = min(tiles.channels, side_of(y.shape[1]))
    chunks, each = triton.cdiv(pixels, block_p), block_p
    if call.moments is not None or norms[0] is not None:
        chunks, each = chunks_of_positions(pixels)
    programs = len(x) * chunks * triton.cdiv(y.shape[1], block_o)
    with _triton.on(x):
        reflect_conv2d_fwd_kernel[(programs, len(calls))](
            *(t for c in (call, other) for t in (c.x, c.weight, c.bias, c.y)),
            *operands.sizes(x, y),
            *operands.strides(x, y),
            *operands.weight_strides(weight),
            chunks,
            each // block_p,
            **left([c.moments for c in calls], norms, chunks),
            **operands.options(tanh, padding, stride, weight.shape, zeros, x),
            **operands.resources(tiles.warps, tiles.stages),
            BLOCK_P=block_p,
            BLOCK_O=block_o,
            BLOCK_C=min(tiles.inner, side_of(x.shape[1])),
        )


def gather(
    calls: Sequence[OfInput],
    biases: Sequence[Tensor | None],
    moments: Sequence[Tensor | None],
    padding: int,
    stride: int,
    zeros: bool,
) -> None:
    """Launch the gradient of the input, which may be a transposed convolution's result."""
    call, other = calls[0], calls[-1]
    grad_y, weight, grad_x = call.grad_y, call.weight, call.grad_x
    operands.check_pixels(grad_x, grad_y)
    tiles, (n, channels, height, width) = tiles_of(grad_x), grad_x.shape
    block_h, block_w, across = _rectangle(height, width, stride, tiles, TILE_WIDTH)
    in_all = _rectangles(height, width, stride, tiles)
    chunks = in_all
    if call.norm is not None:
        chunks = sums_chunks(grad_x.shape, weight.shape, padding, stride)
    each = triton.cdiv(in_all, chunks)
    if moments[0] is not None:
        chunks, rows = chunks_of_rows(height, width, stride)
        block_h, block_w, across = _rectangle(height, width, stride, tiles, tiles.pixels)
        each = stride * stride * across * (rows // block_h)
    block_c = min(tiles.channels, side_of(channels))
    with _triton.on(grad_x):
        reflect_conv2d_bwd_kernel[(n * chunks * triton.cdiv(channels, block_c), len(calls))](
            *_gathered(call, biases[0]),
            *_gathered(other, biases[-1]),
            *operands.sizes(grad_x, grad_y),
            *operands.strides(grad_x, grad_y),
            *operands.weight_strides(weight),
            chunks,
            each,
            **left(moments, [c.norm for c in calls], chunks),
            **operands.options(call.y is not None, padding, stride, weight.shape, zeros, grad_x),
            **operands.resources(tiles.warps, tiles.stages),
            BLOCK_H=block_h,
            BLOCK_W=block_w,
            BLOCK_C=block_c,
            BLOCK_O=min(tiles.inner, side_of(grad_y.shape[1])),
        )


def _gathered(call: OfInput, bias: Tensor | None) -> tuple[Tensor | None, ...]:
    return call.grad_y, operands.either(call.y, call.grad_y), call.weight, bias, call.grad_x


def chunks_of_positions(pixels: int) -> tuple[int, int]:
    """Return the chunks of an image's pixels in their order, and pixels in each: whole tiles."""
    unit = max(min(tiles.pixels, side_of(pixels)) for tiles in TILES.values())
    each = triton.cdiv(triton.cdiv(pixels, unit), MOST_CHUNKS) * unit
    return triton.cdiv(pixels, each), each


def chunks_of_rows(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the chunks of an image's rows, and rows of a phase in each: whole rows of tiles."""
    unit = max(_rectangle(height, width, stride, t, t.pixels)[0] for t in TILES.values())
    tall = triton.cdiv(height, stride)
    rows = triton.cdiv(triton.cdiv(tall, unit), MOST_CHUNKS) * unit
    return triton.cdiv(tall, rows), rows


def _rectangle(
    height: int, width: int, stride: int, tiles: Tiles, widest: int
) -> tuple[int, int, int]:
    """Return the sides of a tile of one of an image's phases, and how many cover it across."""
    tall, broad = triton.cdiv(height, stride), triton.cdiv(width, stride)
    block_w = min(widest, _triton.power_of_two(broad))
    block_h = min(tiles.pixels // block_w, _triton.power_of_two(tall))
    return max(block_h, LEAST // block_w), block_w, triton.cdiv(broad, block_w)


def _rectangles(height: int, width: int, stride: int, tiles: Tiles) -> int:
    """Return how many tiles cover all phases of an image."""
    block_h, _, across = _rectangle(height, width, stride, tiles, TILE_WIDTH)
    return stride * stride * across * triton.cdiv(triton.cdiv(height, stride), block_h)


def splits_of(out_shape: torch.Size, weight_shape: torch.Size, tiles: Tiles) -> tuple[int, int]:
    """Return how many pixels a split of the weight's gradient adds up, and the number of splits."""
    blocks = _blocks(out_shape, tiles)
    each = triton.cdiv(blocks, most_splits(out_shape, weight_shape, tiles))
    return each * tiles.inner, triton.cdiv(blocks, each)


def most_splits(out_shape: torch.Size, weight_shape: torch.Size, tiles: Tiles) -> int:
    """Return the splits that would do, which a larger image does not make fewer."""
    blocks = _blocks(out_shape, tiles)
    return max(1, min(PROGRAMS // _programs(weight_shape, tiles), blocks))


def _blocks(out_shape: torch.Size, tiles: Tiles) -> int:
    n, _, height, width = out_shape
    return triton.cdiv(n * height * width, tiles.inner)


def _programs(weight_shape: torch.Size, tiles: Tiles) -> int:
    """Return the programs of a split."""
    out_channels, channels = (
        triton.cdiv(n, min(tiles.channels, side_of(n))) for n in weight_shape[:2]
    )
    return out_channels * channels * weight_shape[2] * weight_shape[3]


def of_bias(out_shape: torch.Size) -> torch.Size:
    """Return the shape of a weight that stands for the bias alone."""
    return torch.Size((out_shape[1], 1, 1, 1))


def tiles_of(x: Tensor) -> Tiles:
    """Return the tiles for x's dtype and layout."""
    return TILES[x.element_size(), _triton.is_channels_last(x)]


def side_of(n: int) -> int:
    """Return the side of a tile that covers n, as far as tl.dot takes it."""
    return max(LEAST, _triton.power_of_two(n))
