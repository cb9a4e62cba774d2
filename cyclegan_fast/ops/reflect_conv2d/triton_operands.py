# SPDX-License-Identifier: MIT
"""What the kernels of reflect_conv2d take besides pointers."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops import _triton

# Of a thread, all there are: without a word ptxas aims at more blocks a multiprocessor, and spills
# a few values for that (8 to 24 bytes, Triton 3.8's ptxas).
REGISTERS = 255
MOST_INDEX = 1 << 30  # pixels of a batch are counted in 32 bits, offsets in memory in 64


def either(optional: Tensor | None, other: Tensor) -> Tensor:
    """Return a tensor in the place of none, which a kernel does not touch."""
    return other if optional is None else optional


def sizes(x: Tensor, y: Tensor) -> tuple[int, ...]:
    """Return channels, height and width of x and y."""
    return (*x.shape[1:], *y.shape[1:])


def strides(x: Tensor, y: Tensor) -> tuple[int, ...]:
    """Return those of x and y, each from pixel to pixel and from channel to channel."""
    return (*_triton.strides(x), *_triton.strides(y))


def weight_strides(weight: Tensor) -> tuple[int, int]:
    """Return those from channel to channel and from tap to tap."""
    stride_t, stride_c = _triton.strides(weight)
    return stride_c, stride_t


def options(
    padding: int, stride: int, weight_shape: torch.Size, zeros: bool, x: Tensor
) -> dict[str, object]:
    """Return what a kernel is compiled for; x: which dtype."""
    return {
        "PAD": padding,
        "ZEROS": zeros,
        "STRIDE": stride,
        "KH": weight_shape[2],
        "KW": weight_shape[3],
        "PRECISION": precision(x),
    }


def precision(x: Tensor) -> str:
    """Return how float32 is multiplied; 16-bit values are multiplied exactly in any case."""
    cudnn = torch.backends.cudnn
    # The switch's older name raises once the newer one (PyTorch 2.9) has been used, not conversely.
    newer = getattr(cudnn, "conv", None)
    allowed = cudnn.allow_tf32 if newer is None else newer.fp32_precision == "tf32"
    return "tf32" if allowed and x.dtype == torch.float32 else "ieee"


def resources(warps: int, stages: int) -> dict[str, int]:
    """Return what a program may take of a multiprocessor."""
    return {"num_warps": warps, "num_stages": stages, "maxnreg": REGISTERS}


def windows(
    x_shape: torch.Size, weight_shape: torch.Size, padding: int, stride: int
) -> tuple[int, int]:
    """Return how many windows a convolution has down and across."""
    height, width = (
        (side + 2 * padding - k) // stride + 1
        for side, k in zip(x_shape[2:], weight_shape[2:], strict=True)
    )
    return height, width


def check_pixels(x: Tensor, y: Tensor) -> None:
    """Raise unless the pixels of both can be counted."""
    for image in (x, y):
        n, _, height, width = image.shape
        if n * height * width >= MOST_INDEX:
            raise ValueError(
                f"reflect_conv2d: x must have fewer than {MOST_INDEX} pixels, and so must the "
                f"result, got {n} x {height} x {width}"
            )
