# SPDX-License-Identifier: MIT
"""reflect_conv2d in Triton: one call at a time, of one network."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops.reflect_conv2d import triton_implicit
from cyclegan_fast.ops.reflect_conv2d.calls import Forward, OfInput, OfWeight


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
    triton_implicit.forward([Forward(x, weight, bias, y)], padding, stride, tanh)


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
    if grad_x is not None:
        triton_implicit.gradient_of_input([OfInput(grad_y, y, weight, grad_x)], padding, stride)
    if grad_weight is not None or grad_bias is not None:
        call = OfWeight(grad_y, y, x, grad_weight, grad_bias, workspace)
        triton_implicit.gradient_of_weight([call], padding, stride)


def reflect_conv2d_workspace(
    out_shape: torch.Size, weight_shape: torch.Size, _device_type: str
) -> int:
    """Return the float32 elements that backward needs for partial sums."""
    return triton_implicit.workspace(out_shape, weight_shape)
