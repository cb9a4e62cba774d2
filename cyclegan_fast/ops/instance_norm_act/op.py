# SPDX-License-Identifier: MIT
"""instance_norm_act: checks, custom op, fake, autograd; the kernels live behind the back ends."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import DoubleBackwardError
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.reference import instance_norm_act_reference

STEM = "instance_norm_act"
ACTIVATIONS = ("none", "relu", "leaky_relu")

backend.register(STEM, {"native": _common.native_probe}, _common.PREFERENCE)


def instance_norm_act(
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
    """Instance normalisation, activation, residual addition and reflection padding in one pass.

        y = reflect_pad(act((x - mean) * rstd * weight + bias) + residual, pad)

    mean and rstd = 1 / sqrt(var + eps) are taken per (n, c) plane, var with divisor H * W.

    Args:
        x: [N, C, H, W] float16, bfloat16, float32 or float64; contiguous or channels_last
            (any other layout is copied once); H * W >= 2.
        weight: [C] scale, any floating dtype, or None for 1.
        bias: [C] shift, any floating dtype, or None for 0.
        act: "none", "relu" or "leaky_relu".
        negative_slope: slope of leaky_relu below zero.
        residual: [N, C, H, W] in any strides, typically the interior of an earlier padded output;
            it is read in place, and cast to x's dtype if it has another; or None.
        pad: pixels mirrored on each side, 0 <= pad < min(H, W).
        eps: added to the variance.

    Returns:
        [N, C, H + 2 pad, W + 2 pad], dtype of x, and its layout too except from the reference
        back end, which leaves layout to PyTorch. Statistics are float32 (float64 for float64).

    Raises:
        TypeError: a dtype that is not floating-point.
        ValueError: wrong rank, fewer than two pixels in a plane, mismatched shapes, unknown act,
            or pad out of range.
        BackendUnavailableError: a back end chosen by name cannot serve.
        DoubleBackwardError: a second derivative was asked of a fused back end.

    Gradients: first order in x, weight, bias and residual.

    Source: Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022; the residual block of Johnson,
    Alahi, Fei-Fei 2016, arXiv:1603.08155, as used by Zhu et al. 2017, arXiv:1703.10593, section 7.
    """
    _check(x, weight, bias, act, residual, pad)
    chosen = backend.resolve(STEM, x.device.type, x.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        return instance_norm_act_reference(
            x,
            weight,
            bias,
            act=act,
            negative_slope=negative_slope,
            residual=residual,
            pad=pad,
            eps=eps,
        )
    stats_dtype = _common.accumulator(x.dtype)
    return _forward(
        x.contiguous(memory_format=_common.memory_format(x)),
        None if weight is None else weight.to(stats_dtype).contiguous(),
        None if bias is None else bias.to(stats_dtype).contiguous(),
        None if residual is None else residual.to(x.dtype),
        act,
        negative_slope,
        pad,
        eps,
        chosen,
    )[0]


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    act: str,
    residual: Tensor | None,
    pad: int,
) -> None:
    _common.check_image(STEM, "x", x)
    channels, height, width = x.shape[1:]
    if height * width < 2:
        raise ValueError(
            f"{STEM}: x must have at least two pixels per plane, since the variance of one is "
            f"zero; got H x W = {height} x {width}"
        )
    if act not in ACTIVATIONS:
        raise ValueError(f"{STEM}: act must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            _common.check_float(STEM, name, parameter)
            if parameter.shape != (channels,):
                raise ValueError(
                    f"{STEM}: {name} must have shape [C] = [{channels}], "
                    f"got {tuple(parameter.shape)}"
                )
    if residual is not None:
        _common.check_image(STEM, "residual", residual)
        if residual.shape != x.shape:
            raise ValueError(
                f"{STEM}: residual must have x's shape {tuple(x.shape)}, "
                f"got {tuple(residual.shape)}"
            )
    _common.check_pad(STEM, pad, height, width)


@torch.library.custom_op("cyclegan_fast::instance_norm_act", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    act: str,
    negative_slope: float,
    pad: int,
    eps: float,
    backend_name: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, rstd = _outputs(x, pad)
    if x.numel():
        torch.ops.cyclegan_fast_C.instance_norm_act_fwd(
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
            _workspace(x),
        )
    backend.count(STEM, backend_name)
    return y, mean, rstd


@_forward.register_fake
def _(x, weight, bias, residual, act, negative_slope, pad, eps, backend_name):
    return _outputs(x, pad)


def _outputs(x: Tensor, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, w = x.shape
    stats_dtype = _common.accumulator(x.dtype)
    y = torch.empty(
        (n, c, h + 2 * pad, w + 2 * pad),
        dtype=x.dtype,
        device=x.device,
        memory_format=_common.memory_format(x),
    )
    return y, x.new_empty((n, c), dtype=stats_dtype), x.new_empty((n, c), dtype=stats_dtype)


def _workspace(x: Tensor) -> Tensor:
    size = torch.ops.cyclegan_fast_C.instance_norm_act_workspace(
        *x.shape, _common.memory_format(x) == torch.channels_last, x.device.type
    )
    return x.new_empty((size,), dtype=_common.accumulator(x.dtype))


@torch.library.custom_op("cyclegan_fast::instance_norm_act_backward", mutates_args=())
def _backward(
    grad_y: Tensor,
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
        torch.ops.cyclegan_fast_C.instance_norm_act_bwd(
            grad_y,
            None,
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
            _workspace(x),
        )
    backend.count(f"{STEM}_backward", backend_name)
    return grad_x, grad_residual, sums


@_backward.register_fake
def _(grad_y, x, weight, bias, mean, rstd, act, slope, pad, with_residual, backend_name):
    return _gradients(x, mean, with_residual)


def _gradients(x: Tensor, mean: Tensor, with_residual: bool) -> tuple[Tensor, Tensor, Tensor]:
    # A custom op cannot return an optional tensor: an empty one stands for "not asked for".
    grad_residual = torch.empty_like(x) if with_residual else x.new_empty((0,))
    return torch.empty_like(x), grad_residual, mean.new_empty((2, *mean.shape))


def _setup_context(ctx, inputs, output) -> None:
    x, weight, bias, residual, act, negative_slope, pad, _eps, backend_name = inputs
    _y, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.call = (act, negative_slope, pad, backend_name)
    ctx.has_residual = residual is not None


def _autograd(ctx, grad_y, _grad_mean, _grad_rstd):
    nothing = (None,) * 9
    if grad_y is None:
        return nothing
    x, weight, bias, mean, rstd = ctx.saved_tensors
    act, negative_slope, pad, backend_name = ctx.call
    needs_x, needs_weight, needs_bias, needs_residual = ctx.needs_input_grad[:4]
    needs_residual = needs_residual and ctx.has_residual
    grad_y = grad_y.contiguous(memory_format=_common.memory_format(x))
    # Without a pad the residual's gradient is grad_y itself: nothing to fold, nothing to write.
    folds = needs_residual and pad > 0
    grad_x, grad_residual, sums = _backward(
        grad_y, x, weight, bias, mean, rstd, act, negative_slope, pad, folds, backend_name
    )
    return (
        grad_x if needs_x else None,
        sums[1].sum(0) if needs_weight else None,
        sums[0].sum(0) if needs_bias else None,
        (grad_residual if folds else grad_y) if needs_residual else None,
        *nothing[4:],
    )


_forward.register_autograd(_autograd, setup_context=_setup_context)


def _no_second_derivative(ctx, *_grads):
    raise DoubleBackwardError(STEM)


_backward.register_autograd(_no_second_derivative, setup_context=lambda ctx, inputs, output: None)
