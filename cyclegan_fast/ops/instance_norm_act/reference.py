# SPDX-License-Identifier: MIT
"""The specification of instance_norm_act, in plain PyTorch operations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.ops.reflect_pad2d import reflect_pad2d_reference


def instance_norm_act_reference(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    act: str = "relu",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Normalise, activate, add the residual and pad, each as PyTorch's own operation.

    See :func:`cyclegan_fast.ops.instance_norm_act` for the arguments; this is what it must equal.
    """
    dtype = x.dtype
    # PyTorch asks for affine parameters in x's dtype; under autocast they are wider than x.
    weight = None if weight is None else weight.to(dtype)
    bias = None if bias is None else bias.to(dtype)
    if x.numel():
        y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
        if x.device.type == "cpu" and len(x) == 1:
            y = _LaidOutGradient.apply(y)
    else:  # F.instance_norm does not take an empty batch
        y = x if weight is None else x * weight[:, None, None]
        y = y if bias is None else y + bias[:, None, None]
    if statistics is not None:
        y = _with_value(y, x, weight, bias, statistics)
    if act == "relu":
        y = F.relu(y)
    elif act == "leaky_relu":
        y = F.leaky_relu(y, negative_slope)
    if residual is not None:
        y = y + residual.to(dtype)
    return reflect_pad2d_reference(y, pad)


def _with_value(
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistics: tuple[Tensor, Tensor],
) -> Tensor:
    """The value that given statistics make; the gradient is that of y, whose are x's own."""
    with torch.no_grad():
        mean, rstd = (t[:, :, None, None] for t in statistics)
        value = (x.to(mean.dtype) - mean) * rstd
        value = value if weight is None else value * weight.to(mean.dtype)[:, None, None]
        value = value if bias is None else value + bias.to(mean.dtype)[:, None, None]
    return value.to(y.dtype) + (y - y.detach())


class _LaidOutGradient(torch.autograd.Function):
    """Its input, which is contiguous; so is the gradient that it hands back.

    At batch 1 on a CPU, PyTorch's backward of F.instance_norm reads a channels_last gradient as if
    it were contiguous, and says nothing (2.11 and 2.14; tests/ops/test_torch_instance_norm.py).
    """

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()
