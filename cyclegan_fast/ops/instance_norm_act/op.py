# SPDX-License-Identifier: MIT
"""instance_norm_act: the functions users call, and what they accept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS, STEM, forward
from cyclegan_fast.ops.instance_norm_act.reference import instance_norm_act_reference

backend.register(STEM, _common.PROBES, _common.PREFERENCE)


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
    statistics: tuple[Tensor, Tensor] | None = None,
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
        statistics: mean and rstd of x, [N, C] each, contiguous float32 (float64 for float64), where
            whoever made x has taken them already: the pass that takes them is saved, and eps is not
            read. Gradients are those of statistics that x determines.

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
    options = (act, negative_slope, residual, pad, eps, statistics)
    return _apply(x, weight, bias, *options, with_interior=False)[0]


def instance_norm_act_and_interior(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    act: str = "relu",
    negative_slope: float = 0.2,
    residual: Tensor | None = None,
    pad: int = 0,
    eps: float = 1e-5,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`instance_norm_act`, and its result without the border, for a skip connection.

        y = instance_norm_act(x, ...),  interior = y[:, :, pad:H + pad, pad:W + pad]

    The interior is a view of y. Slicing y gives the same values, but then autograd fills and adds a
    whole image for its gradient; here the backward pass adds it where it folds y's own. Do not
    write to it.

    Args, Raises, Source: as of :func:`instance_norm_act`.

    Returns:
        y and its interior, [N, C, H + 2 pad, W + 2 pad] and [N, C, H, W].

    Gradients: first order in x, weight, bias and residual, from y, from the interior, or both.
    """
    options = (act, negative_slope, residual, pad, eps, statistics)
    y, skip = _apply(x, weight, bias, *options, with_interior=True)
    return y, _interior(y, pad) if skip is None else _Interior.apply(y, skip, pad)


def _apply(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    act: str,
    negative_slope: float,
    residual: Tensor | None,
    pad: int,
    eps: float,
    statistics: tuple[Tensor, Tensor] | None,
    *,
    with_interior: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return y, and from a fused back end the tensor that takes the interior's gradient."""
    _check(x, weight, bias, act, residual, pad, statistics)
    chosen = backend.resolve(STEM, x.device.type, x.dtype)
    if chosen == "reference":
        if not torch.compiler.is_compiling():
            backend.count(STEM, chosen)
        y = instance_norm_act_reference(
            x,
            weight,
            bias,
            act=act,
            negative_slope=negative_slope,
            residual=residual,
            pad=pad,
            eps=eps,
            statistics=statistics,
        )
        return y, None
    stats_dtype = _common.accumulator(x.dtype)
    y, _, _, skip = forward(
        x.contiguous(memory_format=_common.memory_format(x)),
        None if weight is None else weight.to(stats_dtype).contiguous(),
        None if bias is None else bias.to(stats_dtype).contiguous(),
        None if residual is None else residual.to(x.dtype),
        *(statistics or (None, None)),
        act,
        negative_slope,
        pad,
        eps,
        with_interior,
        chosen,
    )
    return y, skip


class _Interior(torch.autograd.Function):
    """The view of y without its border; its gradient goes to `skip`, an input made to take it."""

    @staticmethod
    def forward(y: Tensor, skip: Tensor, pad: int) -> Tensor:
        return _interior(y, pad)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        return None, grad, None


def _interior(y: Tensor, pad: int) -> Tensor:
    return y.narrow(2, pad, y.shape[2] - 2 * pad).narrow(3, pad, y.shape[3] - 2 * pad)


def _check(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    act: str,
    residual: Tensor | None,
    pad: int,
    statistics: tuple[Tensor, Tensor] | None,
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
    if statistics is None:
        return
    if len(statistics) != 2:
        raise ValueError(f"{STEM}: statistics must be mean and rstd, got {len(statistics)} of them")
    wanted = _common.accumulator(x.dtype)
    for name, given in zip(("mean", "rstd"), statistics, strict=True):
        if given.shape != x.shape[:2] or given.dtype != wanted or not given.is_contiguous():
            raise ValueError(
                f"{STEM}: statistics' {name} must be contiguous {wanted} [N, C] = "
                f"{list(x.shape[:2])}, got {given.dtype} {list(given.shape)}"
            )
