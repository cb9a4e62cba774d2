# SPDX-License-Identifier: MIT
"""instance_norm_act into memory that is there: its calls, see ops/_into.py."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS, STEM, workspace
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments


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

    def alike(self, other: Any) -> bool:
        """Whether both can be one launch."""
        if not isinstance(other, Call):
            return False
        x, y = self.x, other.x
        return (
            self.backend_name == other.backend_name == "native"
            and (self.name, self.options) == (other.name, other.options)
            and (x.shape, x.dtype, x.device) == (y.shape, y.dtype, y.device)
            and _common.memory_format(x) == _common.memory_format(y)
        )

    def do(self, *beside: Call) -> None:
        """Do the call, and the one beside it, where the kernels of the layout can in one launch."""
        kernels = _common.kernels(STEM, self.backend_name)
        if beside:
            (other,) = beside
            none = self.x.new_empty(0)  # of what is written: None in a list has no schema
            getattr(kernels, f"{self.name}_pair")(
                *([a, b] for a, b in zip(self.read, other.read, strict=True)),
                *self.options,
                *(
                    [none if a is None else a, none if b is None else b]
                    for a, b in zip(self.written, other.written, strict=True)
                ),
            )
        else:
            getattr(kernels, self.name)(*self.read, *self.options, *self.written)
        stem = f"{STEM}_backward" if "bwd" in self.name else STEM
        for call in (self, *beside):
            backend.count(stem, call.backend_name)


def forward_call(
    y: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    *,
    act: str,
    negative_slope: float,
    pad: int,
    eps: float,
    backend_name: str,
    moments: Moments | None = None,
) -> Call:
    """Return the call that writes :func:`instance_norm_act` of x into y.

    Args:
        y: [N, C, H + 2 pad, W + 2 pad], x's dtype and layout.
        x: [N, C, H, W], contiguous or channels_last.
        weight: [C] in the accumulator's dtype, or None.
        bias: likewise.
        residual: [N, C, H, W], x's dtype, any strides; or None.
        mean: [N, C] in the accumulator's dtype, written.
        rstd: likewise.
        act: as the op's.
        negative_slope: as the op's.
        pad: as the op's.
        eps: as the op's.
        backend_name: "native" or "triton".
        moments: of x, if the convolution has left them which made it.
    """
    options: tuple[float, ...] = (ACTIVATIONS.index(act), negative_slope, pad, eps)
    written: tuple[Tensor | None, ...] = (y, mean, rstd)
    read: tuple[Tensor | None, ...] = (x, weight, bias, residual)
    if moments is None:
        written = (*written, workspace(x, backend_name))
        return Call(f"{STEM}_fwd", x, read, options, written, backend_name)
    read = (*read, moments.partial)
    options = (moments.each, moments.pitch, *options)
    return Call(f"{STEM}_finish", x, read, options, written, backend_name)


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
    partial: Tensor | None = None,
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
        partial: the sums, by chunks, if the convolution has left them which read y: see
            NormOfInput.

    Returns:
        The call, and what it writes for the gradients of bias and weight, [2, N, C], not yet
        summed over N.
    """
    sums = mean.new_empty((2, *mean.shape))
    options = (ACTIVATIONS.index(act), negative_slope, pad)
    written: tuple[Tensor | None, ...] = (grad_x, grad_residual, sums)
    read: tuple[Tensor | None, ...] = (grad_y, grad_skip, x, weight, bias, mean, rstd)
    if partial is None:
        written = (*written, workspace(x, backend_name))
        return Call(f"{STEM}_bwd", x, read, options, written, backend_name), sums
    read = (*read, partial)
    return Call(f"{STEM}_bwd_finish", x, read, options, written, backend_name), sums
