# SPDX-License-Identifier: MIT
"""The norms of a plan by hand: their calls, and the gradients of what they read.

A call is handed out before it is done, so that whoever walks two networks can do both in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.fusion.hand_steps import Gradients, add_gradient
from cyclegan_fast.fusion.steps import NormStep
from cyclegan_fast.fusion.walk import Modules, parameter
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import STEM
from cyclegan_fast.ops.instance_norm_act.into import Call, backward_call, forward_call
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments

# (shape without N, dtype, device, layout) -> memory for the pictures of a run
Place = Callable[..., Tensor]


def forward(
    step: NormStep,
    modules: Modules,
    registers: list[Any],
    place: Place,
    moments: Moments | None = None,
) -> tuple[Call, Any]:
    """Return the call that fills the norm's registers, and what is kept for its backward.

    The moments are those of its input, if the convolution has left them which made it.
    """
    x, *rest = (registers[register] for register in step.inputs)
    x = _common.dense(x)
    n, c, h, w = x.shape
    residual = rest[0] if rest else None
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"{step.members[0]}: what is added must have the norm's shape {tuple(x.shape)}, "
            f"got {tuple(residual.shape)}, a sum that broadcasts. Use --merge off."
        )
    weight, bias = (_affine(modules, path, x.dtype) for path in (step.weight, step.bias))
    layout = _common.memory_format(x)
    y = place((c, h + 2 * step.pad, w + 2 * step.pad), x.dtype, x.device, layout)
    name = backend.resolve(STEM, x.device.type, x.dtype)
    call, mean, rstd = forward_call(
        y,
        x,
        weight,
        bias,
        residual,
        eps=step.eps,
        backend_name=name,
        moments=moments,
        **_options(step),
    )
    registers[step.output] = y
    if step.interior is not None:
        registers[step.interior] = y[:, :, step.pad : step.pad + h, step.pad : step.pad + w]
    return call, (x, mean, rstd, weight, bias, name)


def backward(
    step: NormStep,
    modules: Modules,
    kept: Any,
    gradients: Gradients,
    place: Place,
    partial: Tensor | None = None,
) -> Iterator[Call]:
    """Add the gradients of a norm's input and residual, and of its parameters to theirs.

    The partial sums are those that the convolution has left which read its result, if it has.

    Yields:
        The call, to be done before the next step; none where no gradient has come.
    """
    x, mean, rstd, weight, bias, name = kept
    of_y = gradients.take(step.output)
    skip = None if step.interior is None else gradients.take(step.interior)
    if of_y is None and skip is None:
        return
    layout = _common.memory_format(x)
    of_y = None if of_y is None else of_y.contiguous(memory_format=layout)
    # Where the sum's gradient comes as it is there is nothing to fold, add or write.
    residual = step.inputs[1] if len(step.inputs) > 1 else None
    folds = residual is not None and of_y is not None and (step.pad > 0 or skip is not None)
    of_x = place(x.shape[1:], x.dtype, x.device, layout)
    of_residual = torch.empty_like(x) if folds else None
    call, sums = backward_call(
        of_x,
        of_residual,
        of_y,
        skip,
        x,
        weight,
        bias,
        mean,
        rstd,
        backend_name=name,
        partial=partial,
        **_options(step),
    )
    yield call
    gradients.add(step.inputs[0], of_x)
    if residual is not None:
        sum_gradient = of_residual if folds else skip if of_y is None else of_y
        if sum_gradient is not None:
            gradients.add(residual, sum_gradient)
    for path, of_parameter in ((step.weight, sums[1]), (step.bias, sums[0])):
        given = None if path is None else parameter(modules, path)
        if given is not None and given.requires_grad:
            add_gradient(given, of_parameter[gradients.learned].sum(0))


def _affine(modules: Modules, path: str | None, dtype: torch.dtype) -> Tensor | None:
    given = None if path is None else parameter(modules, path)
    wide = _common.accumulator(dtype)
    return None if given is None else given.detach().to(wide).contiguous()


def _options(step: NormStep) -> dict[str, Any]:
    return {"act": step.act, "negative_slope": step.negative_slope, "pad": step.pad}
