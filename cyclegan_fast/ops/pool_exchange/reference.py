# SPDX-License-Identifier: MIT
"""The specification of pool_exchange, in plain PyTorch operations."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_exchange_reference(rows: Tensor, pictures: Tensor, take: Tensor, put: Tensor) -> Tensor:
    """Gather, then scatter; see :func:`cyclegan_fast.ops.pool_exchange` for the arguments."""
    size = len(rows) - 1
    take = take.clamp(0, size + len(pictures) - 1)
    old = rows[take.clamp(max=size)]
    new = pictures[(take - size).clamp(min=0)]
    shown = torch.where((take < size)[:, None, None, None], old, new)
    kept = torch.where((put >= 0) & (put < size), put, size)
    rows[kept] = finite(pictures)
    return shown


def finite(pictures: Tensor) -> Tensor:
    """Return what is kept of pictures: one of an overflowing step must not come back for ever."""
    return pictures.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)  # tanh ends at 1
