# SPDX-License-Identifier: MIT
"""instance_norm_act into memory that is there: for a walk that runs its backward itself."""

from __future__ import annotations

from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS, STEM, workspace


def forward_into(
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    *,
    act: str,
    negative_slope: float,
    pad: int,
    eps: float,
    backend_name: str,
) -> tuple[Tensor, Tensor]:
    """Write :func:`instance_norm_act` of x into y.

    Args:
        y: [N, C, H + 2 pad, W + 2 pad], x's dtype and layout.
        x: [N, C, H, W], contiguous or channels_last.
        weight: [C] in the accumulator's dtype, or None.
        bias: likewise.
        residual: [N, C, H, W], x's dtype, any strides; or None.
        act: as the op's.
        negative_slope: as the op's.
        pad: as the op's.
        eps: as the op's.
        backend_name: "native" or "triton".

    Returns:
        mean and rstd, [N, C] each.
    """
    mean, rstd = (x.new_empty(x.shape[:2], dtype=_common.accumulator(x.dtype)) for _ in range(2))
    _common.kernels(STEM, backend_name).instance_norm_act_fwd(
        x,
        weight,
        bias,
        residual,
        ACTIVATIONS.index(act),
        negative_slope,
        pad,
        eps,
        y,
        mean,
        rstd,
        workspace(x, backend_name),
    )
    backend.count(STEM, backend_name)
    return mean, rstd


def backward_into(
    grad_x: Tensor,
    grad_residual: Tensor | None,
    grad_y: Tensor | None,
    grad_skip: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    *,
    act: str,
    negative_slope: float,
    pad: int,
    backend_name: str,
) -> Tensor:
    """Write the gradients of x and of the residual.

    Args:
        grad_x: [N, C, H, W], x's dtype and layout.
        grad_residual: likewise; or None: nobody asks.
        grad_y: gradient of y, x's dtype and layout; or None.
        grad_skip: gradient of y's interior, [N, C, H, W] in any strides; or None. One of both.
        x: as forward's.
        weight: as forward's.
        bias: as forward's.
        mean: what forward returned.
        rstd: what forward returned.
        act: as forward's.
        negative_slope: as forward's.
        pad: as forward's.
        backend_name: as forward's.

    Returns:
        [2, N, C]: the gradients of bias and weight, not yet summed over N.
    """
    sums = mean.new_empty((2, *mean.shape))
    _common.kernels(STEM, backend_name).instance_norm_act_bwd(
        grad_y,
        grad_skip,
        x,
        weight,
        bias,
        mean,
        rstd,
        ACTIVATIONS.index(act),
        negative_slope,
        pad,
        grad_x,
        grad_residual,
        sums,
        workspace(x, backend_name),
    )
    backend.count(f"{STEM}_backward", backend_name)
    return sums
