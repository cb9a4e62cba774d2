# SPDX-License-Identifier: MIT
"""The specification of instance_norm_act, in plain PyTorch operations."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
    else:  # F.instance_norm does not take an empty batch
        y = x if weight is None else x * weight[:, None, None]
        y = y if bias is None else y + bias[:, None, None]
    if act == "relu":
        y = F.relu(y)
    elif act == "leaky_relu":
        y = F.leaky_relu(y, negative_slope)
    if residual is not None:
        y = y + residual.to(dtype)
    return F.pad(y, (pad, pad, pad, pad), mode="reflect") if pad else y
