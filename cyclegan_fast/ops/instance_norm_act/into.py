# SPDX-License-Identifier: MIT
"""instance_norm_act into memory that is there: for walks that run their backward themselves.

A call is made first and done later, so that those of two networks side by side can be one launch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS, STEM, workspace


class Call(NamedTuple):
    """One call of the op, forward or backward, with all of its memory.

    Attributes:
        name: of the raw op.
        x: the op's input, which decides shape, dtype and layout.
        read: what the raw op takes before its options.
        options: numbers.
        written: what it takes after them.
        backend_name: "native" or "triton".
    """

    name: str
    x: Tensor
    read: tuple[Tensor | None, ...]
    options: tuple[float, ...]
    written: tuple[Tensor | None, ...]
    backend_name: str

    def alike(self, other: Call) -> bool:
        """Whether both can be one launch."""
        x, y = self.x, other.x
        return (
            self.backend_name == other.backend_name == "native"
            and (self.name, self.options) == (other.name, other.options)
            and (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
            and _common.memory_format(x) == _common.memory_format(y)
        )


def do(*calls: Call) -> None:
    """Do one call, or two; those alike in one launch, where the kernels of the layout can."""
    if len(calls) == 2 and calls[0].alike(calls[1]):
        first, second = calls
        pair = getattr(_common.kernels(STEM, first.backend_name), f"{first.name}_pair")
        none = first.x.new_empty(0)  # of what is written: None in a list has no schema
        pair(
            *([a, b] for a, b in zip(first.read, second.read, strict=True)),
            *first.options,
            *(
                [none if a is None else a, none if b is None else b]
                for a, b in zip(first.written, second.written, strict=True)
            ),
        )
    else:
        for call in calls:
            kernel = getattr(_common.kernels(STEM, call.backend_name), call.name)
            kernel(*call.read, *call.options, *call.written)
    for call in calls:
        backward = call.name.endswith("bwd")
        backend.count(f"{STEM}_backward" if backward else STEM, call.backend_name)


def forward_call(
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
) -> tuple[Call, Tensor, Tensor]:
    """Return the call that writes :func:`instance_norm_act` of x into y.

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
        The call, and the mean and rstd that it writes, [N, C] each.
    """
    mean, rstd = (x.new_empty(x.shape[:2], dtype=_common.accumulator(x.dtype)) for _ in range(2))
    options = (ACTIVATIONS.index(act), negative_slope, pad, eps)
    written = (y, mean, rstd, workspace(x, backend_name))
    read = (x, weight, bias, residual)
    return Call(f"{STEM}_fwd", x, read, options, written, backend_name), mean, rstd


def backward_call(
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
) -> tuple[Call, Tensor]:
    """Return the call that writes the gradients of x and of the residual.

    Args:
        grad_x: [N, C, H, W], x's dtype and layout.
        grad_residual: likewise; or None: nobody asks.
        grad_y: gradient of y, x's dtype and layout; or None.
        grad_skip: gradient of y's interior, [N, C, H, W] in any strides; or None. One of both.
        x: as forward's.
        weight: as forward's.
        bias: as forward's.
        mean: what forward's call has written.
        rstd: what forward's call has written.
        act: as forward's.
        negative_slope: as forward's.
        pad: as forward's.
        backend_name: as forward's.

    Returns:
        The call, and what it writes for the gradients of bias and weight, [2, N, C], not yet
        summed over N.
    """
    sums = mean.new_empty((2, *mean.shape))
    options = (ACTIVATIONS.index(act), negative_slope, pad)
    written = (grad_x, grad_residual, sums, workspace(x, backend_name))
    read = (grad_y, grad_skip, x, weight, bias, mean, rstd)
    return Call(f"{STEM}_bwd", x, read, options, written, backend_name), sums
