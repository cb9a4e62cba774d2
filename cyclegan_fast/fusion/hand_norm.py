# SPDX-License-Identifier: MIT
"""The norms of a plan by hand: their calls, and the gradients of what they read.

A call is handed out before it is done, so that whoever walks two networks can do both in one. Where
the convolutions on both sides of a norm do it while they load, its statistics alone are left to do,
and the two sums of its backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.fusion.hand_reads import Loaded, Masked
from cyclegan_fast.fusion.hand_steps import Gradients, add_gradient
from cyclegan_fast.fusion.steps import NormStep
from cyclegan_fast.fusion.walk import Modules, parameter
from cyclegan_fast.ops import _common, _into
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS, STEM
from cyclegan_fast.ops.instance_norm_act.into import backward_call, forward_call
from cyclegan_fast.ops.reflect_conv2d import into_between
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments, Normalised, NormGradient

# (shape without N, dtype, device, layout) -> memory for the pictures of a run
Place = Callable[..., Tensor]
# "result", "gradient", "mean", "rstd" or "sums" of a norm -> where it is written
Places = Callable[[str], Place]


class Kept(NamedTuple):
    """What a norm leaves for its backward.

    Attributes:
        x: its input.
        mean: [N, C].
        rstd: [N, C].
        weight: [C] in the accumulator's dtype, or None.
        bias: likewise.
        name: of the back end.
    """

    x: Tensor
    mean: Tensor
    rstd: Tensor
    weight: Tensor | None
    bias: Tensor | None
    name: str


def forward(
    step: NormStep,
    modules: Modules,
    registers: list[Any],
    places: Places,
    moments: Moments | None = None,
    *,
    loaded: bool = False,
) -> tuple[_into.Call, Kept]:
    """Return the call that fills the norm's registers, and what is kept for its backward.

    Args:
        step: of the plan.
        modules: the network's.
        registers: of the run.
        places: where the results are written.
        moments: those of its input, if the convolution has left them which made it.
        loaded: the convolution that reads the result does the norm; only with moments.
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
    wide = _common.accumulator(x.dtype)
    mean, rstd = (places(name)((c,), wide, x.device) for name in ("mean", "rstd"))
    name = backend.resolve(STEM, x.device.type, x.dtype)
    kept = Kept(x, mean, rstd, weight, bias, name)
    if loaded and moments is not None:
        act = ACTIVATIONS.index(step.act)
        norm = Normalised(mean, rstd, weight, bias, act, step.negative_slope)
        registers[step.output] = Loaded(x, norm, step.pad)
        return into_between.statistics_call(moments, (h, w), step.eps, mean, rstd), kept
    layout = _common.memory_format(x)
    y = places("result")((c, h + 2 * step.pad, w + 2 * step.pad), x.dtype, x.device, layout)
    call = forward_call(
        y,
        x,
        weight,
        bias,
        residual,
        mean,
        rstd,
        eps=step.eps,
        backend_name=name,
        moments=moments,
        **_options(step),
    )
    registers[step.output] = y
    if step.interior is not None:
        registers[step.interior] = y[:, :, step.pad : step.pad + h, step.pad : step.pad + w]
    return call, kept


def backward(
    step: NormStep,
    modules: Modules,
    kept: Kept,
    gradients: Gradients,
    places: Places,
    partial: Tensor | None = None,
    *,
    masked: bool = False,
) -> Iterator[_into.Call]:
    """Add the gradients of a norm's input and residual, and of its parameters to theirs.

    Args:
        step: of the plan.
        modules: the network's.
        kept: what forward has kept.
        gradients: on their way back.
        places: where the gradients are written.
        partial: the sums that the convolution has left which read the result, if it has.
        masked: the result's gradient is dz, and the convolution before does the rest; only with
            partial sums.

    Yields:
        The call, to be done before the next step; none where no gradient has come.
    """
    x, mean, rstd, weight, bias, name = kept
    of_y = gradients.take(step.output)
    skip = None if step.interior is None else gradients.take(step.interior)
    if of_y is None and skip is None:
        return
    residual = step.inputs[1] if len(step.inputs) > 1 else None
    if masked and partial is not None and of_y is not None:
        sums = places("sums")((2, x.shape[1]), torch.float32, x.device)
        yield into_between.sums_call(partial, sums)
        norm = NormGradient(x, mean, rstd, weight, sums)
        gradients.leave(step.inputs[0], Masked(of_y, norm))
        if residual is not None:
            gradients.add(residual, of_y)
        _of_parameters(step, modules, sums[gradients.learned].unbind(1))
        return
    layout = _common.memory_format(x)
    of_y = None if of_y is None else of_y.contiguous(memory_format=layout)
    options = _options(step)
    if of_y is not None and of_y.shape == x.shape:
        options["pad"] = 0  # the convolution has folded what came of mirror images
    # Where the sum's gradient comes as it is there is nothing to fold, add or write.
    folds = residual is not None and of_y is not None and (options["pad"] > 0 or skip is not None)
    of_x = places("gradient")(x.shape[1:], x.dtype, x.device, layout)
    of_residual = torch.empty_like(x) if folds else None
    call, by_picture = backward_call(
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
        **options,
    )
    yield call
    gradients.add(step.inputs[0], of_x)
    if residual is not None:
        sum_gradient = of_residual if folds else skip if of_y is None else of_y
        if sum_gradient is not None:
            gradients.add(residual, sum_gradient)
    _of_parameters(step, modules, by_picture[:, gradients.learned].unbind(0))


def _of_parameters(step: NormStep, modules: Modules, by_picture: tuple[Tensor, ...]) -> None:
    """Add the gradients of bias and weight, [N, C] each, to theirs."""
    for path, gradient in zip((step.bias, step.weight), by_picture, strict=True):
        given = None if path is None else parameter(modules, path)
        if given is not None and given.requires_grad:
            add_gradient(given, gradient.sum(0))


def _affine(modules: Modules, path: str | None, dtype: torch.dtype) -> Tensor | None:
    given = None if path is None else parameter(modules, path)
    wide = _common.accumulator(dtype)
    return None if given is None else given.detach().to(wide).contiguous()


def _options(step: NormStep) -> dict[str, Any]:
    return {"act": step.act, "negative_slope": step.negative_slope, "pad": step.pad}
