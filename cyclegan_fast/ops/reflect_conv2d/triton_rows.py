# SPDX-License-Identifier: MIT
"""reflect_conv2d in Triton over the rows of an image that is padded already, or not at all.

In channels_last such an image is a matrix of N H W rows, of which a tap reads some rows further
down than its neighbour. Nothing is reflected and no channel is left over, so that tiles are
rectangles of memory: from compute capability 9.0 on, the tensor memory accelerator fetches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_kernels
from cyclegan_fast.ops.reflect_conv2d.calls import Forward
from cyclegan_fast.ops.reflect_conv2d.triton_rows_fwd import reflect_conv2d_rows_fwd_kernel


class Tiles(NamedTuple):
    """Sides of the tiles that tl.dot multiplies."""

    positions: int  # of a result that is an image: EACH is a multiple
    channels: int  # of a result
    inner: int  # of what is summed over
    warps: int
    stages: int  # of loads that are under way


# Of 16-bit types by the first architecture of a kind: a stage of 128 x 128 x 64 is 32 KB, and of
# shared memory a block has 227 KB on sm_90 and sm_100, 163 KB on sm_80, 99 KB on the others. Of
# float32 by how it is multiplied. None spills.
TILES: dict[int | str, Tiles] = {
    80: Tiles(128, 128, 64, 8, 4),
    86: Tiles(128, 128, 64, 8, 4),
    90: Tiles(128, 128, 64, 8, 4),
    100: Tiles(128, 64, 64, 8, 4),
    "tf32": Tiles(64, 64, 32, 8, 3),
    "ieee": Tiles(64, 32, 16, 4, 3),
}
REGISTERS = 255
CHANNELS = 16  # a multiple of them is served: tl.dot's smallest side, and 16 bytes
DESCRIBED_FROM = 90
EACH = 128  # positions in a chunk of moments or sums, or a multiple
MOST_CHUNKS = 64  # of an image: the norm's second stage reads them all in each of its programs


def why_not(x: Tensor, weight: Tensor, padding: int, stride: int) -> str | None:
    """Return why a call is not served, or None."""
    if padding:
        return "the image must be padded already"
    if stride != 1:
        return "a stride is no shift of rows"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"{x.dtype} is not served"
    if any(side % CHANNELS for side in weight.shape[:2]):
        return f"channels must be multiples of {CHANNELS}"
    if not all(t.permute(0, 2, 3, 1).is_contiguous() for t in (x, weight)):
        return "x and weight must be dense in channels_last"
    if x.numel() // x.shape[1] >= triton_kernels.MOST_INDEX:
        return f"x must have fewer than {triton_kernels.MOST_INDEX} pixels"
    return None


def moments_cover(
    x_shape: Sequence[int], weight_shape: Sequence[int], padding: int, stride: int
) -> tuple[int, int, int]:
    """Return chunks, each and pitch of the moments of one image, see beside_norm.Moments."""
    height, width = x_shape[2:]
    chunks, each = _chunks((height - weight_shape[2] + 1) * width)
    return chunks, each, width


def forward(calls: Sequence[Forward], padding: int, stride: int, tanh: bool) -> None:
    """Write the convolutions, and their moments where they are asked for."""
    a, b = calls[0], calls[-1]
    n, channels, height, width = a.x.shape
    out_channels, _, *kernel = a.weight.shape
    with _triton.on(a.x):
        tiles = _tiles(a.x)
        block_p = tiles.positions
        block_o = _side(out_channels, tiles.channels)
        block_c = _side(channels, tiles.inner)
        positions = a.y.shape[2] * width
        each = block_p if a.moments is None else _chunks(positions)[1]
        chunks = triton.cdiv(positions, each)
        programs = n * chunks * (out_channels // block_o)
        described = _described(a.x, b.x, a.weight, b.weight)
        images: list[Any] = [a.x, b.x]
        filters: list[Any] = [a.weight, b.weight]
        if described:
            images = [_matrix(x, n * height * width, channels, block_p, block_c) for x in images]
            row = kernel[0] * kernel[1] * channels
            filters = [_matrix(w, out_channels, row, block_o, block_c) for w in filters]
        reflect_conv2d_rows_fwd_kernel[(programs, len(calls))](
            images[0],
            filters[0],
            a.bias,
            a.y,
            a.moments,
            images[1],
            filters[1],
            b.bias,
            b.y,
            b.moments,
            chunks,
            height,
            width,
            channels,
            *a.y.shape[2:],
            out_channels,
            PAIR=len(calls) == 2,
            DESCRIBED=described,
            TANH=tanh,
            KH=kernel[0],
            KW=kernel[1],
            PRECISION=triton_kernels._precision(a.x),
            TILES=each // block_p,
            BLOCK_P=block_p,
            BLOCK_O=block_o,
            BLOCK_C=block_c,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            maxnreg=REGISTERS,
        )


def _chunks(positions: int) -> tuple[int, int]:
    """Return into how many chunks an image is cut, and the positions of each."""
    blocks = triton.cdiv(positions, EACH)
    each = triton.cdiv(blocks, MOST_CHUNKS)
    return triton.cdiv(blocks, each), each * EACH


def _side(n: int, most: int) -> int:
    """Return the largest power of two that divides n, or `most`."""
    return min(n & -n, most)


def _matrix(x: Tensor, rows: int, columns: int, *block: int) -> TensorDescriptor:
    return TensorDescriptor(x, [rows, columns], [columns, 1], list(block))


def _architecture() -> int:
    """Return the current device's compute capability, 90 for 9.0 say."""
    return 0 if _triton.INTERPRETED else driver.active.get_current_target().arch


def _tiles(x: Tensor) -> Tiles:
    if x.dtype == torch.float32:
        return TILES[triton_kernels._precision(x)]
    architecture = _architecture()
    if 90 <= architecture < 120:
        return TILES[90 if architecture < 100 else 100]
    return TILES[80 if architecture in (80, 87) else 86]


def _described(*operands: Tensor) -> bool:
    """Return whether tensor descriptors are to be had, and can describe the operands."""
    aligned = all(x.data_ptr() % 16 == 0 for x in operands)
    return aligned and _architecture() >= DESCRIBED_FROM
