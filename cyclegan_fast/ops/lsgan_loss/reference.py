# SPDX-License-Identifier: MIT
"""The specification of lsgan_loss, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.ops import _common


def lsgan_loss_reference(pred: Tensor, target: float | bool | Tensor) -> Tensor:
    """Mean squared difference to the target, computed in float32 (float64 for float64)."""
    dtype = pred.dtype
    if isinstance(target, Tensor):
        dtype = torch.promote_types(dtype, target.dtype)
    dtype = _common.accumulator(dtype)
    target = target.to(dtype) if isinstance(target, Tensor) else float(target)
    return (pred.to(dtype) - target).square().mean()
