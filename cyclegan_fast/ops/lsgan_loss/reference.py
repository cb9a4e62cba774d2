# SPDX-License-Identifier: MIT
"""The specification of lsgan_loss, in plain PyTorch operations."""

from __future__ import annotations

from torch import Tensor

from cyclegan_fast.ops import _common


def lsgan_loss_reference(pred: Tensor, target: float | bool | Tensor) -> Tensor:
    """Mean squared difference to the target, computed in float32 (float64 for float64)."""
    dtype = _common.accumulator(pred.dtype)
    target = target.to(dtype) if isinstance(target, Tensor) else float(target)
    return (pred.to(dtype) - target).square().mean()
