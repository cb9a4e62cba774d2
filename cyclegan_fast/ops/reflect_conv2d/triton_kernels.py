# SPDX-License-Identifier: MIT
"""reflect_conv2d in Triton: what is launched, in tiles of which size.

No padded copy is made in either direction. Sums are in float32; float64 has no kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from cyclegan_fast.ops import _triton
from cyclegan_fast.ops.reflect_conv2d.triton_bwd import (
    reflect_conv2d_bwd_kernel,
    reflect_conv2d_sum_kernel,
    reflect_conv2d_weight_kernel,
)
from cyclegan_fast.ops.reflect_conv2d.triton_fwd import reflect_conv2d_fwd_kernel


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
# Of a thread, all there are: without a word ptxas aims at more blocks a multiprocessor, and spills
# a few values for that (8 to 24 bytes, Triton 3.8's ptxas).
REGISTERS = 255
LEAST = 16  # tl.dot's smallest side
TILE_WIDTH = 16  # pixels side by side in a tile of backward, if the image has as many
PROGRAMS = 512  # wanted of the weight's gradient: a few for each of 132 multiprocessors
SUM_BLOCK = 1024  # elements of a gradient that one program adds up
MOST_INDEX = 1 << 30  # pixels of a batch are counted in 32 bits, offsets in memory in 64


def reflect_conv2d_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: int,
    stride: int,
    tanh: bool,
    y: Tensor,
) -> None:
    """Write the convolution of x, padded by reflection, into y, dense in the layout of x."""
    _check_pixels(x, y)
    tiles = _tiles(x)
    (n, channels, _, _), (_, out_channels, out_height, out_width) = x.shape, y.shape
    block_p = min(tiles.pixels, _side(out_height * out_width))
    block_o = min(tiles.channels, _side(out_channels))
    programs = n * triton.cdiv(out_height * out_width, block_p) * triton.cdiv(out_channels, block_o)
    with _triton.on(x):
        reflect_conv2d_fwd_kernel[(programs,)](
            x,
            weight,
            x if bias is None else bias,
            y,
            *_sizes(x, y),
            *_strides(x, y, weight),
            HAS_BIAS=bias is not None,
            TANH=tanh,
            PAD=padding,
            STRIDE=stride,
            KH=weight.shape[2],
            KW=weight.shape[3],
            PRECISION=_precision(x),
            BLOCK_P=block_p,
            BLOCK_O=block_o,
            BLOCK_C=min(tiles.inner, _side(channels)),
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            maxnreg=REGISTERS,
        )


def reflect_conv2d_bwd(
    grad_y: Tensor,
    y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    padding: int,
    stride: int,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    workspace: Tensor,
) -> None:
    """Write the gradients that are not None; y is forward's result if that was a tanh's."""
    _check_pixels(x, grad_y)
    options = {
        "TANH": y is not None,
        "PAD": padding,
        "STRIDE": stride,
        "KH": weight.shape[2],
        "KW": weight.shape[3],
        "PRECISION": _precision(x),
    }
    y = grad_y if y is None else y
    with _triton.on(x):
        if grad_x is not None:
            _gradient_of_x(grad_y, y, weight, grad_x, options)
        if grad_weight is not None or grad_bias is not None:
            _gradient_of_weight(grad_y, y, x, weight, grad_weight, grad_bias, workspace, options)


def reflect_conv2d_workspace(
    out_shape: torch.Size, weight_shape: torch.Size, _device_type: str
) -> int:
    """Return the float32 elements that backward needs for partial sums."""
    elements = weight_shape.numel() + weight_shape[0]
    return elements * max(_cover(out_shape, weight_shape, tiles)[1] for tiles in TILES.values())


def _gradient_of_x(
    grad_y: Tensor, y: Tensor, weight: Tensor, grad_x: Tensor, options: dict[str, object]
) -> None:
    tiles = _tiles(grad_x)
    n, channels, height, width = grad_x.shape
    block_w = min(TILE_WIDTH, _triton.power_of_two(width))
    block_h = min(tiles.pixels // block_w, _triton.power_of_two(height))
    block_h = max(block_h, LEAST // block_w)
    block_c = min(tiles.channels, _side(channels))
    programs = n * triton.cdiv(height, block_h) * triton.cdiv(width, block_w)
    reflect_conv2d_bwd_kernel[(programs * triton.cdiv(channels, block_c),)](
        grad_y,
        y,
        weight,
        grad_x,
        *_sizes(grad_x, grad_y),
        *_strides(grad_x, grad_y, weight),
        **options,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        maxnreg=REGISTERS,
        BLOCK_H=block_h,
        BLOCK_W=block_w,
        BLOCK_C=block_c,
        BLOCK_O=min(tiles.inner, _side(grad_y.shape[1])),
    )


def _gradient_of_weight(
    grad_y: Tensor,
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
    workspace: Tensor,
    options: dict[str, object],
) -> None:
    tiles = _tiles(x)
    chunk, splits = _cover(grad_y.shape, weight.shape, tiles)
    block_o = min(tiles.channels, _side(grad_y.shape[1]))
    block_c = min(tiles.channels, _side(x.shape[1]))
    programs = splits * triton.cdiv(grad_y.shape[1], block_o)
    if grad_weight is not None:
        programs *= triton.cdiv(x.shape[1], block_c) * weight.shape[2] * weight.shape[3]
    reflect_conv2d_weight_kernel[(programs,)](
        grad_y,
        y,
        x,
        workspace,
        x.shape[0],
        *_sizes(x, grad_y),
        *_strides(x, grad_y, weight),
        chunk,
        WEIGHT=grad_weight is not None,
        BIAS=grad_bias is not None,
        **options,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        maxnreg=REGISTERS,
        BLOCK_P=tiles.inner,
        BLOCK_O=block_o,
        BLOCK_C=block_c,
    )
    elements = [0 if g is None else g.numel() for g in (grad_weight, grad_bias)]
    reflect_conv2d_sum_kernel[(triton.cdiv(sum(elements), SUM_BLOCK),)](
        workspace,
        workspace if grad_weight is None else grad_weight,
        workspace if grad_bias is None else grad_bias,
        splits,
        *elements,
        BLOCK=SUM_BLOCK,
    )


def _cover(out_shape: torch.Size, weight_shape: torch.Size, tiles: Tiles) -> tuple[int, int]:
    """Return how many pixels a split of the weight's gradient adds up, and the number of splits."""
    n, out_channels, out_height, out_width = out_shape
    _, channels, *kernel = weight_shape
    programs = kernel[0] * kernel[1]
    for side in (out_channels, channels):
        programs *= triton.cdiv(side, min(tiles.channels, _side(side)))
    blocks = triton.cdiv(n * out_height * out_width, tiles.inner)
    each = triton.cdiv(blocks, max(1, min(PROGRAMS // programs, blocks)))
    return each * tiles.inner, triton.cdiv(blocks, each)


def _tiles(x: Tensor) -> Tiles:
    return TILES[x.element_size(), _triton.is_channels_last(x)]


def _side(n: int) -> int:
    """Return the side of a tile that covers n, as far as tl.dot takes it."""
    return max(LEAST, _triton.power_of_two(n))


def _sizes(x: Tensor, y: Tensor) -> tuple[int, ...]:
    return (*x.shape[1:], *y.shape[1:])


def _strides(x: Tensor, y: Tensor, weight: Tensor) -> tuple[int, ...]:
    """Return those of x, y (pixel, channel) and weight (channel, tap)."""
    weight_stride_t, weight_stride_c = _triton.strides(weight)
    return (*_triton.strides(x), *_triton.strides(y), weight_stride_c, weight_stride_t)


def _precision(x: Tensor) -> str:
    """Return how float32 is multiplied; 16-bit values are multiplied exactly in any case."""
    cudnn = torch.backends.cudnn
    # The switch's older name raises once the newer one (PyTorch 2.9) has been used, not conversely.
    newer = getattr(cudnn, "conv", None)
    allowed = cudnn.allow_tf32 if newer is None else newer.fp32_precision == "tf32"
    return "tf32" if allowed and x.dtype == torch.float32 else "ieee"


def _check_pixels(x: Tensor, y: Tensor) -> None:
    for image in (x, y):
        n, _, height, width = image.shape
        if n * height * width >= MOST_INDEX:
            raise ValueError(
                f"reflect_conv2d: x must have fewer than {MOST_INDEX} pixels, and so must the "
                f"result, got {n} x {height} x {width}"
            )
