# SPDX-License-Identifier: MIT
"""The gradient of a 3x3 weight in float32 on a CPU, by Winograd's F(3x3, 2x2).

A window of 2 x 2 results takes 16 multiplications a pair of channels, where the sum over nine taps
takes 36; oneDNN does not have the algorithm. The products are PyTorch's own matrix products. What
the transforms round away is little beside what a sum over an image's pixels does. Forward and the
gradient of x, whose sums are shorter, would err more than twice as much as oneDNN, and are not done
so.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import _extension

PRODUCTS = 16
LEAST_CHANNELS = 128  # on either side: below, the transforms outweigh the products
LEAST_PIXELS = 4096  # of a batch's results: sums of fewer would err by it twice as much
WINDOWS = 512  # at once: what their factors take stays in a processor's cache


def serves(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the weight's gradient of such a convolution is taken here.

    Args:
        x: [N, C, H, W], padded already.
        weight: [C_out, C, KH, KW].
        stride: of the convolution.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and stride == 1
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and x.shape[0] * (x.shape[2] - 2) * (x.shape[3] - 2) >= LEAST_PIXELS
        and x.is_contiguous(memory_format=torch.channels_last)
        and _extension.available()
    )


def weight_gradient(grad_y: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of the weight, channels_last.

    Args:
        grad_y: [N, C_out, H - 2, W - 2] float32.
        x: [N, C, H, W] float32, channels_last, padded already.
    """
    ops = torch.ops.cyclegan_fast_C
    grad_y = grad_y.contiguous(memory_format=torch.channels_last)
    (n, out_channels, height, width), channels = grad_y.shape, x.shape[1]
    windows = n * ((height + 1) // 2) * ((width + 1) // 2)
    products = x.new_zeros((PRODUCTS, out_channels, channels))
    at_once = min(WINDOWS, windows)
    all_y = x.new_empty((at_once, PRODUCTS, out_channels))
    all_x = x.new_empty((at_once, PRODUCTS, channels))
    for first in range(0, windows, at_once):
        of_y, of_x = all_y[: windows - first], all_x[: windows - first]
        ops.reflect_conv2d_winograd_factors(grad_y, True, first, of_y)
        ops.reflect_conv2d_winograd_factors(x, False, first, of_x)
        products.baddbmm_(of_y.permute(1, 2, 0), of_x.transpose(0, 1))
    grad_weight = torch.empty(
        (out_channels, channels, 3, 3), memory_format=torch.channels_last, dtype=x.dtype
    )
    ops.reflect_conv2d_winograd_gather(products, grad_weight)
    return grad_weight
