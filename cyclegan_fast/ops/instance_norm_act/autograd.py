# SPDX-License-Identifier: MIT
"""instance_norm_act: custom ops, fakes and autograd over the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common

STEM = "instance_norm_act"
ACTIVATIONS = ("none", "relu", "leaky_relu")


@torch.library.custom_op("cyclegan_fast::instance_norm_act", mutates_args=())
def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    given_mean: Tensor | None,
    given_rstd: Tensor | None,
    act: str,
    negative_slope: float,
    pad: int,
    eps: float,
    with_interior: bool,
    backend_name: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y, mean and rstd unless they are given, and what takes the interior's gradient."""
    given = given_mean is not None
    y, mean, rstd, skip = _outputs(x, given, pad, with_interior)
    kernels, activation = _common.kernels(STEM, backend_name), ACTIVATIONS.index(act)
    if x.numel() and given:
        kernels.instance_norm_act_apply(
            x, weight, bias, residual, given_mean, given_rstd, activation, negative_slope, pad, y
        )
    elif x.numel():
        kernels.instance_norm_act_fwd(
            x,
            weight,
            bias,
            residual,
            activation,
            negative_slope,
            pad,
            eps,
            y,
            mean,
            rstd,
            workspace(x, backend_name),
        )
    backend.count(STEM, backend_name)
    return y, mean, rstd, skip


@forward.register_fake
def _(x, weight, bias, residual, mean, rstd, act, slope, pad, eps, with_interior, backend_name):
    return _outputs(x, mean is not None, pad, with_interior)


def _outputs(
    x: Tensor, given: bool, pad: int, with_interior: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, c, h, w = x.shape
    stats_dtype = _common.accumulator(x.dtype)
    y = torch.empty(
        (n, c, h + 2 * pad, w + 2 * pad),
        dtype=x.dtype,
        device=x.device,
        memory_format=_common.memory_format(x),
    )
    # A custom op may not return what it is given: where statistics are, empty ones stand for them.
    mean, rstd = (x.new_empty((n, 0 if given else c), dtype=stats_dtype) for _ in range(2))
    # Nobody reads skip: it is there so that autograd brings the interior's gradient, which has its
    # shape. One element of memory is enough for that.
    skip = x.new_zeros(()).expand(x.shape) if with_interior else x.new_empty((0,))
    return y, mean, rstd, skip


def workspace(x: Tensor, backend_name: str) -> Tensor:
    """Allocate what the kernels of either direction leave for their second stage."""
    size = _common.kernels(STEM, backend_name).instance_norm_act_workspace(
        *x.shape, _common.memory_format(x) == torch.channels_last, x.device.type
    )
    return x.new_empty((size,), dtype=_common.accumulator(x.dtype))


@torch.library.custom_op("cyclegan_fast::instance_norm_act_backward", mutates_args=())
def _backward(
    grad_y: Tensor | None,
    grad_skip: Tensor | None,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    act: str,
    negative_slope: float,
    pad: int,
    with_residual: bool,
    backend_name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_x, grad_residual, sums = _gradients(x, mean, with_residual)
    if x.numel():
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
            grad_residual if with_residual else None,
            sums,
            workspace(x, backend_name),
        )
    backend.count(f"{STEM}_backward", backend_name)
    return grad_x, grad_residual, sums


@_backward.register_fake
def _(grad_y, grad_skip, x, weight, bias, mean, rstd, act, slope, pad, with_residual, backend):
    return _gradients(x, mean, with_residual)


def _gradients(x: Tensor, mean: Tensor, with_residual: bool) -> tuple[Tensor, Tensor, Tensor]:
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    grad_residual = torch.empty_like(x) if with_residual else x.new_empty((0,))
    return torch.empty_like(x), grad_residual, mean.new_empty((2, *mean.shape))


def _setup_context(ctx, inputs, output) -> None:
    x, weight, bias, residual, given_mean, given_rstd, act, negative_slope, pad = inputs[:9]
    _eps, with_interior, backend_name = inputs[9:]
    _y, mean, rstd, skip = output
    ctx.mark_non_differentiable(mean, rstd, *(() if with_interior else (skip,)))
    ctx.set_materialize_grads(False)
    if given_mean is not None:
        mean, rstd = given_mean, given_rstd
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.activation = (act, negative_slope)
    ctx.pad = pad
    ctx.backend_name = backend_name
    ctx.has_residual = residual is not None


def _autograd(ctx, grad_y, _grad_mean, _grad_rstd, grad_skip):
    nothing = (None,) * 12
    if grad_y is None and grad_skip is None:
        return nothing
    x, weight, bias, mean, rstd = ctx.saved_tensors
    needs_x, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:4]
    needs_residual = needs_residual and ctx.has_residual
    if grad_y is not None:
        grad_y = grad_y.contiguous(memory_format=_common.memory_format(x))
    # The residual's gradient is that of the unpadded sum: where it comes as it is, without a pad or
    # from the interior alone, there is nothing to fold, nothing to add and nothing to write.
    folds = needs_residual and grad_y is not None and (ctx.pad > 0 or grad_skip is not None)
    grad_x, grad_residual, sums = _backward(
        grad_y,
        grad_skip,
        x,
        weight,
        bias,
        mean,
        rstd,
        *ctx.activation,
        ctx.pad,
        folds,
        ctx.backend_name,
    )
    if needs_residual and not folds:
        grad_residual = grad_skip if grad_y is None else grad_y
    return (
        grad_x if needs_x else None,
        sums[1].sum(0) if needs_weight else None,
        sums[0].sum(0) if needs_bias else None,
        grad_residual if needs_residual else None,
        *nothing[4:],
    )


forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
