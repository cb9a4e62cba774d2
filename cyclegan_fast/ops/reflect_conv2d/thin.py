# SPDX-License-Identifier: MIT
"""Convolutions between many channels and at most four on a CPU, factored by the kernel's rows.

oneDNN rounds channels up to a vector or a tile, so with three of them most of its work is on
nothing. Taken row by row, a 7x7 kernel is seven of 1x7: on the thin side their results lie side by
side as 7 * 3 channels of one convolution, and are added, each shifted by its row:

    y[o, h, w] = bias[o] + sum over r of t[(r, o), h + r, w]
    t[(r, o), h, w] = sum over c, s of weight[o, c, r, s] x[c, h, w + s]

The gradients of x and of the weight are those of the one convolution, with the gradient of t, which
is that of y beside itself KH times. Where x is the thin side, its gradient is made so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import _extension
from cyclegan_fast.ops.reflect_conv2d import convolution

MOST_THIN = 4  # channels
LEAST_WIDE = 16
LEAST_ROWS = 5  # of the kernel


def few_results(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether a convolution with few results is factored here; x is padded already."""
    return _fits(x, weight, stride) and _thin(weight.shape[0], weight.shape[1])


def few_channels(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the gradient of an image of few channels is factored here."""
    return _fits(x, weight, stride) and _thin(weight.shape[1], weight.shape[0])


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution, channels_last; for `few_results`.

    Args:
        x: [N, C, H, W], padded already, channels_last.
        weight: [C_out, C, KH, KW].
        bias: [C_out] or None.
    """
    out_channels, _, rows, _ = weight.shape
    t = _channels_last(convolution.convolution(x, _rows_of_results(weight)))
    n, _, height, width = t.shape
    y = _empty((n, out_channels, height - rows + 1, width), x)
    bias = None if bias is None else bias.contiguous()
    torch.ops.cyclegan_fast_C.reflect_conv2d_sum_rows(t, bias, False, y)
    return y


def gradients(
    grad_y: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias that are asked for; for `few_results`.

    Args:
        grad_y: [N, C_out, H - KH + 1, W - KW + 1].
        x: [N, C, H, W], padded already, channels_last; read for the gradient of the weight only.
        weight: [C_out, C, KH, KW].
        needs: of which.
    """
    out_channels, channels, rows, columns = weight.shape
    factored = (needs[0] and x.dtype == torch.bfloat16, needs[1], False)
    of_x = of_weight = None
    if any(factored):
        of_t = _empty((len(x), rows * out_channels, x.shape[2], grad_y.shape[3]), x)
        torch.ops.cyclegan_fast_C.reflect_conv2d_spread_rows(_channels_last(grad_y), of_t)
        of_x, of_rows, _ = convolution.gradients(of_t, x, _rows_of_results(weight), factored)
        if of_rows is not None:
            of_weight = of_rows.view(rows, out_channels, channels, columns).permute(1, 2, 0, 3)
    if needs[0] and of_x is None:  # oneDNN is as fast where it does not use tiles
        of_x = convolution.gradient_of_x(grad_y, x, weight)
    of_bias = grad_y.sum((0, 2, 3), dtype=torch.float64).to(x.dtype) if needs[2] else None
    return of_x, of_weight, of_bias


def gradient_of_few_channels(grad_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of x, channels_last; for `few_channels`.

    Args:
        grad_y: [N, C_out, H - KH + 1, W - KW + 1].
        x: [N, C, H, W], padded already; not read.
        weight: [C_out, C, KH, KW].
    """
    out_channels, channels, rows, columns = weight.shape
    n, _, _, width = x.shape
    turned = weight.permute(0, 2, 1, 3).reshape(out_channels, rows * channels, 1, columns)
    like = _empty((n, rows * channels, grad_y.shape[2], width), x)
    of_rows = convolution.gradient_of_x(_channels_last(grad_y), like, _channels_last(turned))
    of_x = _empty(x.shape, x)
    torch.ops.cyclegan_fast_C.reflect_conv2d_sum_rows(_channels_last(of_rows), None, True, of_x)
    return of_x


def _fits(x: Tensor, weight: Tensor, stride: int) -> bool:
    return (
        x.device.type == "cpu"
        and stride == 1
        and weight.shape[2] >= LEAST_ROWS
        and x.is_contiguous(memory_format=torch.channels_last)
        and _extension.available()
    )


def _thin(few: int, many: int) -> bool:
    return few <= MOST_THIN and many >= LEAST_WIDE


def _rows_of_results(weight: Tensor) -> Tensor:
    """Return [KH * C_out, C, 1, KW], tap by tap."""
    out_channels, channels, rows, columns = weight.shape
    turned = weight.permute(2, 0, 1, 3).reshape(rows * out_channels, channels, 1, columns)
    return _channels_last(turned)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: tuple[int, ...] | torch.Size, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)
