# SPDX-License-Identifier: MIT
"""PyTorch's own convolution without padding, whichever library it goes to, and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

aten = torch.ops.aten


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Return the convolution of x [N, C, H, W] with weight [C_out, C, KH, KW]."""
    return aten.convolution(x, weight, bias, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1)


def gradients(
    grad_y: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool], stride: int = 1
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias that are asked for, None for the others.

    x is read for the gradient of the weight only; else its shape, dtype and layout are.
    """
    if not any(needs):
        return None, None, None
    made = _backward(grad_y, x, weight, needs, stride)
    # oneDNN makes more than it is asked for.
    of_x, of_weight, of_bias = (g if need else None for g, need in zip(made, needs, strict=True))
    return of_x, of_weight, of_bias


def gradient_of_x(grad_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of x alone, which is not read."""
    return _backward(grad_y, x, weight, (True, False, False), 1)[0]


def _backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool], stride: int
) -> list[Tensor]:
    bias_sizes = [weight.shape[0]] if needs[2] else None
    return aten.convolution_backward(
        grad_y, x, weight, bias_sizes, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1, list(needs)
    )
