# SPDX-License-Identifier: MIT
"""Into what the launches over rows are cut, and whether they use tensor descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from triton.runtime.driver import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS


class Tiles(NamedTuple):
    """Sides of the tiles that tl.dot multiplies."""

    positions: int  # of a result that is an image: EACH is a multiple
    channels: int  # of a result
    inner: int  # of what is summed over
    warps: int
    stages: int  # of loads that are under way
    stages_of_tanh: int  # the same where a tanh's result is loaded beside its gradient


# Of 16-bit types by the first architecture of a kind: a stage of 128 x 128 x 64 is 32 KB, and of
# shared memory a block has 227 KB on sm_90 and sm_100, 163 KB on sm_80, 99 KB on the others; with a
# tanh's result it is 48 KB. Of float32 by how it is multiplied. None spills.
TILES: dict[int | str, Tiles] = {
    80: Tiles(128, 128, 64, 8, 4, 4),
    86: Tiles(128, 128, 64, 8, 4, 3),
    90: Tiles(128, 128, 64, 8, 4, 4),
    100: Tiles(128, 64, 64, 8, 4, 4),
    "tf32": Tiles(64, 64, 32, 8, 3, 3),
    "ieee": Tiles(64, 32, 16, 4, 3, 3),
}
DESCRIBED_FROM = 90
EACH = 128  # positions in a chunk of moments or sums, or a multiple
# Wanted of the weight's gradient, one for each multiprocessor of an H100: a split more is that
# many float32 sums more to write and to read, which is soon as long as the product takes.
PROGRAMS = 132


class Split(NamedTuple):
    """How a layer's sum over pixels is cut: in blocks of height x width, `blocks` a split."""

    height: int
    width: int
    blocks: int
    splits: int


def architecture() -> int:
    """Return the current device's compute capability, 90 for 9.0 say."""
    return 0 if _triton.INTERPRETED else driver.active.get_current_target().arch


def tiles(x: Tensor) -> Tiles:
    """Return the tiles for x's dtype on the current device."""
    if x.dtype == torch.float32:
        return TILES[operands.precision(x)]
    kind = architecture()
    if 90 <= kind < 120:
        return TILES[90 if kind < 100 else 100]
    return TILES[80 if kind in (80, 87) else 86]


def side(n: int, most: int) -> int:
    """Return the largest power of two that divides n, or `most`."""
    return min(n & -n, most)


def chunks(positions: int) -> tuple[int, int]:
    """Return into how many chunks an image is cut, and the positions of each."""
    blocks = triton.cdiv(positions, EACH)
    each = triton.cdiv(blocks, MOST_CHUNKS)
    return triton.cdiv(blocks, each), each * EACH


def split(
    out_shape: Sequence[int], weight_shape: Sequence[int], tiles: Tiles, groups: int = 1
) -> Split:
    """Return how the gradient of each layer's weight is cut; out_shape is of all the layers."""
    n, out_channels, out_height, out_width = out_shape
    _, channels, *kernel = weight_shape

    def in_image(width: int) -> int:
        return triton.cdiv(out_height, tiles.inner // width) * triton.cdiv(out_width, width)

    # The fewest blocks, so the fewest pixels that are none; of those the widest.
    widths = [tiles.inner >> k for k in range(tiles.inner.bit_length())]
    width = min(widths, key=in_image)
    programs = groups * kernel[0] * kernel[1]
    for n_channels in (out_channels, channels):
        programs *= n_channels // side(n_channels, tiles.channels)
    blocks = n // groups * in_image(width)
    each = triton.cdiv(blocks, max(1, min(PROGRAMS // programs, blocks)))
    return Split(tiles.inner // width, width, each, triton.cdiv(blocks, each))


def described(*operands: Tensor) -> bool:
    """Return whether tensor descriptors are to be had, and can describe the operands."""
    aligned = all(x.data_ptr() % 16 == 0 for x in operands)
    return aligned and architecture() >= DESCRIBED_FROM


def matrix(x: Tensor, columns: int, block: tuple[int, int]) -> TensorDescriptor:
    """Describe dense memory as a matrix."""
    return TensorDescriptor(x, [x.numel() // columns, columns], [columns, 1], list(block))


def image(x: Tensor, block: tuple[int, int, int]) -> TensorDescriptor:
    """Describe channels_last images; a block has rows, columns and channels of one of them."""
    n, channels, height, width = x.shape
    strides = [height * width * channels, width * channels, channels, 1]
    return TensorDescriptor(x, [n, height, width, channels], strides, [1, *block])
