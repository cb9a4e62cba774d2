# SPDX-License-Identifier: MIT
"""How the factored convolutions cut their work: tiles, and what of it is a chunk or a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import triton

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS

LEAST = 16  # tl.dot's smallest side
SUM_BLOCK = 256  # elements of a gradient that one program adds up: of 9,408 there are
SPLITS = 128  # wanted of the weight's gradient: about one for each multiprocessor
SUM_PROGRAMS = 256  # wanted of results of few channels: two for each multiprocessor
LEAST_SUM_ROWS, MOST_SUM_ROWS = 8, 32  # rows of such a tile, besides the KH - 1 that are read twice


class Tiles(NamedTuple):
    """What programs make at once, by an element's bytes."""

    channels: int  # of a result of many channels
    sum_pixels: int  # of a row, for a result of few channels
    sum_inner: int  # channels that it is summed over at once, unless rolled
    weight_pixels: int  # of a row, that the weight's gradient is summed over at once
    weight_channels: int
    weight_rows: int  # of the kernel


WIDE_HEIGHT, WIDE_WIDTH = 4, 64  # pixels of a tile of many channels
TILES = {2: Tiles(64, 64, 32, 32, 64, 4), 4: Tiles(32, 64, 16, 32, 32, 2)}
WARPS, SUM_WARPS = 8, 4


def splits(out_shape: Sequence[int], weight_shape: Sequence[int], block_p: int) -> tuple[int, int]:
    """Return the rows of a split of the weight's gradient, and the number of splits."""
    n, _, down, across = out_shape
    if weight_shape[0] < weight_shape[1]:  # few results: summed over the padded image
        down, across = down + weight_shape[2] - 1, across + weight_shape[3] - 1
    strips = triton.cdiv(across, block_p)
    rows = triton.cdiv(n * down, max(1, min(SPLITS // strips, n * down)))
    return rows, strips * triton.cdiv(n * down, rows)


def rows_of_sum(strips: int, height: int) -> int:
    """Return the rows of a tile of a result of few channels, in strips of all images together."""
    wanted = triton.cdiv(strips * height, SUM_PROGRAMS)
    return min(max(wanted, LEAST_SUM_ROWS), MOST_SUM_ROWS)


def tile_width(width: int) -> int:
    """Return the columns of a tile of a result of many channels."""
    return max(LEAST // WIDE_HEIGHT, min(WIDE_WIDTH, _triton.power_of_two(width)))


def rows_of_chunk(height: int) -> tuple[int, int]:
    """Return the rows of tiles in a chunk of an image, and the chunks of an image."""
    down = triton.cdiv(height, WIDE_HEIGHT)
    rows = triton.cdiv(down, MOST_CHUNKS)
    return rows, triton.cdiv(down, rows)


def tiles_of_chunk(height: int, width: int) -> tuple[int, int]:
    """Return the tiles in a chunk that need not be whole rows, and the chunks of an image."""
    tiles = triton.cdiv(height, WIDE_HEIGHT) * triton.cdiv(width, tile_width(width))
    count = triton.cdiv(tiles, MOST_CHUNKS)
    return count, triton.cdiv(tiles, count)


def block(channels: int, most: int) -> int:
    """Return the channels of a tile, at most so many."""
    return min(most, side(channels))


def side(n: int) -> int:
    """Return the side of a tile that covers n, as far as tl.dot takes it."""
    return max(LEAST, _triton.power_of_two(n))
