# SPDX-License-Identifier: MIT
"""The specification of reflect_conv2d, in plain PyTorch operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.ops.reflect_pad2d import reflect_pad2d_reference


def reflect_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    padding: int,
    stride: int = 1,
    act: str = "none",
) -> Tensor:
    """Pad by reflection, convolve and apply the activation with PyTorch's own operations."""
    y = F.conv2d(reflect_pad2d_reference(x, padding), weight, bias, stride)
    return torch.tanh(y) if act == "tanh" else y
