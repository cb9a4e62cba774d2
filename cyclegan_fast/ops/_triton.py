# SPDX-License-Identifier: MIT
"""What the Triton kernels share: the launch's device, tiles, reflection and its adjoint.

Importing it imports Triton; only the back end does so, when it is first asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from cyclegan_fast.ops import _common

# Read when a kernel is decorated, so fixed by now: interpreted kernels run on the CPU.
INTERPRETED = bool(triton.knobs.runtime.interpret)

# Pixels of a padded plane are counted in 32 bits, offsets in memory in 64.
MOST_PIXELS = 1 << 30

# Side by side in a tile: 128 bytes of the 16-bit types, a whole cache line.
MOST_CHANNELS = 64


def on(x: Tensor) -> AbstractContextManager[object]:
    """Make x's device the one that kernels are launched on."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else nullcontext()


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def accumulator(x: Tensor) -> tl.dtype:
    """Return Triton's name of the dtype of statistics and sums over x."""
    return tl.float64 if _common.accumulator(x.dtype) == torch.float64 else tl.float32


class Tile(NamedTuple):
    """What a program holds at once: powers of two, as Triton asks."""

    pixels: int
    channels: int


def tile(pixels: int, channels: int, channels_last: bool, elements: int) -> Tile:
    """Cover planes with tiles of about `elements`, wide where memory is contiguous."""
    wide, narrow = (channels, pixels) if channels_last else (pixels, channels)
    most = MOST_CHANNELS if channels_last else elements
    across = min(power_of_two(wide), most, elements)
    along = min(power_of_two(narrow), elements // across)
    return Tile(along, across) if channels_last else Tile(across, along)


def check_plane(op: str, padded: Tensor) -> None:
    """Raise unless the pixels of a plane of the padded image can be counted."""
    height, width = padded.shape[2:]
    if height * width >= MOST_PIXELS:
        raise ValueError(
            f"{op}: x must have fewer than {MOST_PIXELS} pixels per padded plane, "
            f"got {height} x {width}"
        )


def is_channels_last(x: Tensor) -> bool:
    """Return which of the two dense layouts x has."""
    return _common.memory_format(x) == torch.channels_last


def strides(x: Tensor) -> tuple[int, int]:
    """Return the distances from a pixel to the next and from a channel to the next.

    Pixels of a plane are equally far apart in both dense layouts: c values in channels_last, one
    in the contiguous layout.
    """
    _, c, h, w = x.shape
    return (c, 1) if is_channels_last(x) else (1, h * w)


@triton.jit
def of_call(first, second):
    """The operand of a program's call, where a launch makes two: the grid's second axis says which.

    A launch of one call has that axis of one, and may pass its operand twice.
    """
    return tl.where(tl.program_id(1) == 0, first, second)


@triton.jit
def reflected(i, pad, size):
    """Source row (or column) of padded row i: the mirror at 0 and at size - 1."""
    k = tl.abs(i - pad)
    return tl.minimum(k, 2 * (size - 1) - k)


@triton.jit
def tanh(z, ACC: tl.constexpr):
    """Take tanh without libdevice, which an interpreter has not.

    (1 - e) / (1 + e) with e = exp(-2 |z|), in which nothing overflows; near zero, where 1 - e loses
    digits, the series: eight terms are exact to float32's last place below 1/2, to float64's below
    1/8.
    """
    e = tl.exp(-2 * tl.abs(z))
    magnitude = (1 - e) / (1 + e)
    s = z * z
    p = 21844 / 6081075 - s * (929569 / 638512875)
    p = 62 / 2835 - s * (1382 / 155925 - s * p)
    p = 1 - s * (1 / 3 - s * (2 / 15 - s * (17 / 315 - s * p)))
    near = s < (1 / 64 if ACC == tl.float64 else 1 / 4)
    return tl.where(near, z * p, tl.where(z < 0, -magnitude, magnitude))


@triton.jit
def folded(
    padded_ptr,  # [height + 2 PAD, width + 2 PAD, channels], the gradient of a padded image
    first,  # the tile's first pixel
    offs_p,  # [BLOCK_P] the tile's pixels
    offs_c,  # [BLOCK_C] offsets of the channels
    mask,  # [BLOCK_P, BLOCK_C]
    height,
    width,
    stride_p,  # from pixel to pixel
    ACC: tl.constexpr,
    PAD: tl.constexpr,
):
    """The adjoint of reflection: the gradients of pixels and of all their mirror images, added."""
    h = offs_p // width
    total = _folded_row(padded_ptr, h + PAD, offs_p, offs_c, mask, width, stride_p, ACC, PAD)
    if PAD > 0:
        # Most tiles lie away from the first and the last rows: two thirds of the loads saved.
        if first // width <= PAD:
            row = tl.where((h >= 1) & (h <= PAD), PAD - h, -1)
            total += _folded_row(padded_ptr, row, offs_p, offs_c, mask, width, stride_p, ACC, PAD)
        if (first + offs_p.shape[0] - 1) // width >= height - 1 - PAD:
            below = height - 1 - h
            row = tl.where((below >= 1) & (below <= PAD), height - 1 + PAD + below, -1)
            total += _folded_row(padded_ptr, row, offs_p, offs_c, mask, width, stride_p, ACC, PAD)
    return total


@triton.jit
def _folded_row(
    padded_ptr, row, offs_p, offs_c, mask, width, stride_p, ACC: tl.constexpr, PAD: tl.constexpr
):
    """What padded rows (-1: none) hold of pixels and of their mirror images left and right."""
    w = offs_p % width
    right = width - 1 - w
    total = tl.zeros(mask.shape, ACC)
    for side in tl.static_range(3 if PAD > 0 else 1):
        column = w + PAD
        if side == 1:
            column = tl.where((w >= 1) & (w <= PAD), PAD - w, -1)
        if side == 2:
            column = tl.where((right >= 1) & (right <= PAD), width - 1 + PAD + right, -1)
        there = mask & ((row >= 0) & (column >= 0))[:, None]
        pixel = (row * (width + 2 * PAD) + column).to(tl.int64)
        offsets = pixel[:, None] * stride_p + offs_c[None, :]
        total += tl.load(padded_ptr + offsets, mask=there, other=0).to(ACC)
    return total
