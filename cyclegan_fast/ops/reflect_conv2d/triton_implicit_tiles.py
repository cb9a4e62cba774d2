# SPDX-License-Identifier: MIT
"""Into what the implicit GEMM's launches are cut: tiles, chunks of an image, splits of a sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d.beside_norm import MOST_CHUNKS


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
# Of what is summed over, where a norm's backward is applied on load: it has two images to load and
# four numbers a channel to keep (64 on sm_80: 255 registers, and Triton 3.6 spills).
GRADIENT_INNER = 32
LEAST = 16  # tl.dot's smallest side
TILE_WIDTH = 16  # pixels side by side in a tile of backward, if the image has as many
# Wanted of the weight's gradient. A split more is that many float32 sums more to write and to read;
# two for each of 132 multiprocessors do, for two calls share a launch.
PROGRAMS = 264


def tiles_of(x: Tensor) -> Tiles:
    """Return the tiles for x's dtype and layout."""
    return TILES[x.element_size(), _triton.is_channels_last(x)]


def inner_of(tiles: Tiles, channels: int, gradient: bool) -> int:
    """Return the channels that a step adds up; gradient: of a norm's backward applied on load."""
    return min(tiles.inner, side_of(channels), GRADIENT_INNER if gradient else tiles.inner)


def side_of(n: int) -> int:
    """Return the side of a tile that covers n, as far as tl.dot takes it."""
    return max(LEAST, _triton.power_of_two(n))


def chunks_of_positions(pixels: int) -> tuple[int, int]:
    """Return the chunks of an image's pixels in their order, and pixels in each: whole tiles."""
    unit = max(min(tiles.pixels, side_of(pixels)) for tiles in TILES.values())
    each = triton.cdiv(triton.cdiv(pixels, unit), MOST_CHUNKS) * unit
    return triton.cdiv(pixels, each), each


def chunks_of_rows(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the chunks of an image's rows, and rows of a phase in each: whole rows of tiles."""
    unit = max(rectangle(height, width, stride, t, t.pixels)[0] for t in TILES.values())
    tall = triton.cdiv(height, stride)
    rows = triton.cdiv(triton.cdiv(tall, unit), MOST_CHUNKS) * unit
    return triton.cdiv(tall, rows), rows


def chunks_of_rectangles(height: int, width: int, stride: int) -> int:
    """Return the chunks of the tiles that cover all phases of an image."""
    tiles = min(rectangles(height, width, stride, each) for each in TILES.values())
    return triton.cdiv(tiles, triton.cdiv(tiles, MOST_CHUNKS))


def rectangle(
    height: int, width: int, stride: int, tiles: Tiles, widest: int
) -> tuple[int, int, int]:
    """Return the sides of a tile of one of an image's phases, and how many cover it across."""
    tall, broad = triton.cdiv(height, stride), triton.cdiv(width, stride)
    block_w = min(widest, _triton.power_of_two(broad))
    block_h = min(tiles.pixels // block_w, _triton.power_of_two(tall))
    return max(block_h, LEAST // block_w), block_w, triton.cdiv(broad, block_w)


def rectangles(height: int, width: int, stride: int, tiles: Tiles) -> int:
    """Return how many tiles cover all phases of an image."""
    block_h, _, across = rectangle(height, width, stride, tiles, TILE_WIDTH)
    return stride * stride * across * triton.cdiv(triton.cdiv(height, stride), block_h)


def splits_of(
    out_shape: Sequence[int],
    weight_shape: Sequence[int],
    tiles: Tiles,
    groups: int = 1,
    by_image: bool = False,
) -> tuple[int, int]:
    """Return the positions that a split of a layer's sum over pixels adds up, and the splits.

    Args:
        out_shape: [N, C_out, OH, OW], of all layers together.
        weight_shape: [C_out, C, KH, KW].
        tiles: for the images.
        groups: layers.
        by_image: no block of pixels is of two images: each image has whole blocks of positions.
    """
    n, _, height, width = out_shape
    each = triton.cdiv(height * width, tiles.inner) * tiles.inner if by_image else height * width
    blocks = triton.cdiv(n // groups * each, tiles.inner)
    count = triton.cdiv(blocks, most_splits(out_shape, weight_shape, tiles, groups))
    return count * tiles.inner, triton.cdiv(blocks, count)


def most_splits(
    out_shape: Sequence[int], weight_shape: Sequence[int], tiles: Tiles, groups: int = 1
) -> int:
    """Return the splits that would do, which a larger image does not make fewer."""
    n, _, height, width = out_shape
    blocks = triton.cdiv(n // groups * height * width, tiles.inner)
    return max(1, min(PROGRAMS // (groups * programs_of(weight_shape, tiles)), blocks))


def programs_of(weight_shape: Sequence[int], tiles: Tiles) -> int:
    """Return the programs of a split."""
    out_channels, channels = (
        triton.cdiv(n, min(tiles.channels, side_of(n))) for n in weight_shape[:2]
    )
    return out_channels * channels * weight_shape[2] * weight_shape[3]


def split_elements(
    out_shape: Sequence[int], weight_shape: Sequence[int], elements: int, groups: int
) -> int:
    """Return the float32 elements of all splits of `elements`, where there is more than one."""
    splits = (
        splits_of(out_shape, weight_shape, tiles, groups, by_image)[1]
        for tiles in TILES.values()
        for by_image in (False, True)
    )
    return max((n * groups * elements for n in splits if n > 1), default=0)


def of_bias(out_shape: torch.Size) -> torch.Size:
    """Return the shape of a weight that stands for the bias alone."""
    return torch.Size((out_shape[1], 1, 1, 1))
