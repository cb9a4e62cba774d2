# SPDX-License-Identifier: MIT
"""The specification of l1_loss, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops import _common


def l1_loss_reference(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference, computed in float32 (float64 for float64)."""
    dtype = _common.accumulator(torch.promote_types(a.dtype, b.dtype))
    return (a.to(dtype) - b.to(dtype)).abs().mean()
