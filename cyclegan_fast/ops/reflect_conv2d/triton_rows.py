# SPDX-License-Identifier: MIT
"""reflect_conv2d in Triton over the rows of an image that is padded already, or not at all.

In channels_last such an image is a matrix of N H W rows, of which a tap reads some rows further
down than its neighbour. Nothing is reflected and no channel is left over, so that tiles are
rectangles of memory: from compute capability 9.0 on, the tensor memory accelerator fetches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d import triton_operands as operands
from cyclegan_fast.ops.reflect_conv2d import triton_rows_tiles as cut
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight
from cyclegan_fast.ops.reflect_conv2d.triton_beside import left
from cyclegan_fast.ops.reflect_conv2d.triton_rows_bwd import reflect_conv2d_rows_bwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_rows_fwd import reflect_conv2d_rows_fwd_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_rows_weight import reflect_conv2d_rows_weight_kernel
from cyclegan_fast.ops.reflect_conv2d.triton_splits import add_splits

CHANNELS = 16  # a multiple of them is served: tl.dot's smallest side, and 16 bytes


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
    if x.numel() // x.shape[1] >= operands.MOST_INDEX:
        return f"x must have fewer than {operands.MOST_INDEX} pixels"
    return None


def moments_cover(
    x_shape: Sequence[int], weight_shape: Sequence[int], padding: int, stride: int
) -> tuple[int, int, int]:
    """Return chunks, each and pitch of the moments of one image, see beside_norm.Moments."""
    height, width = x_shape[2:]
    chunks, each = cut.chunks((height - weight_shape[2] + 1) * width)
    return chunks, each, width


def forward(calls: Sequence[Forward], padding: int, stride: int, tanh: bool) -> None:
    """Write the convolutions, and their moments where they are asked for."""
    a, b = calls[0], calls[-1]
    n, channels, height, width = a.x.shape
    out_channels, _, *kernel = a.weight.shape
    with _triton.on(a.x):
        tiles = cut.tiles(a.x)
        block_p = tiles.positions
        block_o = cut.side(out_channels, tiles.channels)
        block_c = cut.side(channels, tiles.inner)
        positions = a.y.shape[2] * width
        each = block_p if a.moments is None else cut.chunks(positions)[1]
        chunks = triton.cdiv(positions, each)
        if a.moments is not None and a.moments.shape[1] != chunks:
            found = a.moments.shape[1]
            raise ValueError(f"reflect_conv2d: moments must have {chunks} chunks, got {found}")
        programs = n * chunks * (out_channels // block_o)
        described = cut.described(a.x, b.x, a.weight, b.weight)
        images: list[Any] = [a.x, b.x]
        filters: list[Any] = [a.weight, b.weight]
        if described:
            images = [cut.matrix(x, channels, (block_p, block_c)) for x in images]
            row = kernel[0] * kernel[1] * channels
            filters = [cut.matrix(w, row, (block_o, block_c)) for w in filters]
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
            each // block_p,
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
            PRECISION=operands.precision(a.x),
            BLOCK_P=block_p,
            BLOCK_O=block_o,
            BLOCK_C=block_c,
            **operands.resources(tiles.warps, tiles.stages),
        )


def sums_chunks(
    x_shape: Sequence[int], weight_shape: Sequence[int], padding: int, stride: int
) -> int:
    """Return the chunks of an image's sums, see beside_norm.NormOfInput."""
    return cut.chunks(x_shape[2] * x_shape[3])[0]


def gradient_of_input(calls: Sequence[OfInput], padding: int, stride: int) -> None:
    """Write the images' gradients, and the sums of the norm before where they are asked for."""
    a, b = calls[0], calls[-1]
    n, channels, height, width = a.grad_x.shape
    out_channels, _, *kernel = a.weight.shape
    with _triton.on(a.grad_x):
        tiles = cut.tiles(a.grad_x)
        stages = tiles.stages if a.y is None else tiles.stages_of_tanh
        block_p = tiles.positions
        block_c = cut.side(channels, tiles.channels)
        positions = height * width
        each = block_p if a.norm is None else cut.chunks(positions)[1]
        chunks = triton.cdiv(positions, each)
        reflect_conv2d_rows_bwd_kernel[(n * chunks * (channels // block_c), len(calls))](
            *(t for c in (a, b) for t in (c.grad_y, c.y, c.weight, c.grad_x)),
            chunks,
            each // block_p,
            height,
            width,
            channels,
            *a.grad_y.shape[2:],
            out_channels,
            **left([None], [c.norm for c in calls], chunks),
            PAIR=len(calls) == 2,
            TANH=a.y is not None,
            KH=kernel[0],
            KW=kernel[1],
            PRECISION=operands.precision(a.grad_x),
            BLOCK_P=block_p,
            BLOCK_C=block_c,
            BLOCK_O=cut.side(out_channels, tiles.inner),
            **operands.resources(tiles.warps, stages),
        )


def gradient_of_weight(calls: Sequence[OfWeight], padding: int, stride: int) -> None:
    """Write the gradients of the weights and the biases that are not None."""
    a, b = calls[0], calls[-1]
    groups = a.groups
    (n, channels, height, width), out_channels = a.x.shape, a.grad_y.shape[1]
    if n % groups:
        raise ValueError(
            f"reflect_conv2d: groups must have as many images each, got {n} images for {groups} "
            "groups: lay the layers' images one behind another"
        )
    kernel = [height - a.grad_y.shape[2] + 1, width - a.grad_y.shape[3] + 1]
    with _triton.on(a.x):
        tiles = cut.tiles(a.x)
        stages = tiles.stages if a.y is None else tiles.stages_of_tanh
        weight_shape = (out_channels, channels, *kernel)
        split = cut.split(a.grad_y.shape, weight_shape, tiles, groups)
        block_o = cut.side(out_channels, tiles.channels)
        block_c = cut.side(channels, tiles.channels)
        programs = groups * split.splits * (out_channels // block_o)
        if a.grad_weight is not None:
            programs *= channels // block_c * kernel[0] * kernel[1]
        # A block of several rows would come to the product by way of registers.
        described = a.y is None and split.height == 1
        described = described and cut.described(a.grad_y, b.grad_y, a.x, b.x)
        grads: list[Any] = [a.grad_y, b.grad_y]
        images: list[Any] = [a.x, b.x]
        if described:
            grads = [cut.image(g, (split.height, split.width, block_o)) for g in grads]
            images = [cut.image(x, (split.height, split.width, block_c)) for x in images]
        reflect_conv2d_rows_weight_kernel[(programs, len(calls))](
            grads[0],
            a.y,
            images[0],
            *_sums(a, split.splits),
            grads[1],
            b.y,
            images[1],
            *_sums(b, split.splits),
            n // groups,
            groups,
            height,
            width,
            channels,
            *a.grad_y.shape[2:],
            out_channels,
            split.blocks,
            PAIR=len(calls) == 2,
            DESCRIBED=described,
            DIRECT=split.splits == 1,
            WEIGHT=a.grad_weight is not None,
            BIAS=a.grad_bias is not None,
            TANH=a.y is not None,
            KH=kernel[0],
            KW=kernel[1],
            PRECISION=operands.precision(a.x),
            BLOCK_H=split.height,
            BLOCK_W=split.width,
            BLOCK_O=block_o,
            BLOCK_C=block_c,
            # The bias's sums pass shared memory too: on sm_120 there is none beside four stages.
            **operands.resources(tiles.warps, stages - (a.grad_bias is not None)),
        )
        if split.splits > 1:
            add_splits(calls, split.splits)


def workspace(out_shape: Sequence[int], weight_shape: Sequence[int], groups: int = 1) -> int:
    """Return the float32 elements that a call of gradient_of_weight needs, on any device.

    Args:
        out_shape: of grad_y, with the images of all groups.
        weight_shape: of one layer's.
        groups: layers, see calls.OfWeight.
    """
    splits = _most_splits(out_shape, weight_shape, groups)
    if splits == 1:
        return 0
    out_channels, channels, *kernel = weight_shape
    return splits * groups * out_channels * (channels * kernel[0] * kernel[1] + 1)


def weight_launches(out_shape: Sequence[int], weight_shape: Sequence[int], groups: int = 1) -> int:
    """Return the launches of gradient_of_weight, the most on any device; arguments as above."""
    return 1 if _most_splits(out_shape, weight_shape, groups) == 1 else 2


def _most_splits(out_shape: Sequence[int], weight_shape: Sequence[int], groups: int) -> int:
    return max(
        cut.split(out_shape, weight_shape, tiles, groups).splits for tiles in cut.TILES.values()
    )


def _sums(call: OfWeight, splits: int) -> tuple[Tensor | None, Tensor | None]:
    """Return where the sums go: into the gradients, or for splits both into the workspace."""
    if splits == 1:
        return call.grad_weight, call.grad_bias
    return call.workspace, call.workspace
