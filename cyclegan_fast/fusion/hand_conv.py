# SPDX-License-Identifier: MIT
"""The convolutions of a plan by hand, each served as the table says (ops/reflect_conv2d/table.py).

The device's library does them at once. A call of Triton's kernels is handed out before it is done,
so that whoever walks two networks can do both in one.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast.fusion import hand_serving
from cyclegan_fast.fusion.hand_norm import Kept as NormKept
from cyclegan_fast.fusion.hand_norm import Place
from cyclegan_fast.fusion.hand_reads import Kept, Loaded, Masked, Read
from cyclegan_fast.fusion.hand_steps import Gradients, Tools, add_gradient
from cyclegan_fast.fusion.steps import ConvStep, NormStep
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS
from cyclegan_fast.ops.reflect_conv2d import into
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments, NormOfInput
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.op import layout_of


class Norm(NamedTuple):
    """The norm that has made a convolution's input, and alone has a gradient from it.

    Attributes:
        step: of the plan.
        kept: what hand_norm.forward has kept.
        masked: its backward is done by the convolution before it.
        place: where dz is written then.
    """

    step: NormStep
    kept: NormKept
    masked: bool
    place: Place


class Left(NamedTuple):
    """What the gradient of a convolution's input leaves for the norm that has made it.

    Attributes:
        sums: by chunks.
        masked: the gradient is the norm's dz.
    """

    sums: Tensor
    masked: bool


def forward(
    tools: Tools, step: ConvStep, registers: list[Any], *, pad: int | None, place: Place | None
) -> Generator[into.Call, None, tuple[Kept, Moments | None]]:
    """Fill a convolution's register.

    Args:
        tools: as every step's.
        step: of the plan.
        registers: of the run.
        pad: pixels by which a norm has padded the input for this convolution alone; None: none has.
        place: where the result is written, if a norm alone reads it; else None.

    Returns:
        What backward reads; and where a norm alone reads the result, its moments, if the kernel can
        leave them.
    """
    given = registers[step.inputs[0]]
    loaded = given if isinstance(given, Loaded) else None
    x = _common.dense(given) if loaded is None else loaded.x
    loads = loaded is not None
    if not loads and (pad is not None or place is not None):
        like = hand_serving.inside(x, pad or 0)
        loads = hand_serving.loads_norms(tools, step, like, pad or 0)
    name, layer = hand_serving.serving(tools, step, x, "forward", loaded)
    moments = None
    if layer is None:
        y = tools.convolution(step, x)
    else:
        layout = layout_of(x, layer.weight)
        layer = layer._replace(x=x.contiguous(memory_format=layout))
        y = tools.result_of(step, layer, layout, place)
        module: Any = tools.modules[step.module]
        bias = tools.read(module.bias) if step.use_bias else None
        left = place is not None and hand_serving.finishes(y)
        norm = None if loaded is None else loaded.norm
        call, moments = into.forward_call(
            name, layer, bias, y, tanh=step.act == "tanh", with_moments=left, norm=norm
        )
        yield call
    registers[step.output] = y
    return Kept(x, y if step.act == "tanh" else None, loaded, loads), moments


def of_input(
    tools: Tools,
    step: ConvStep,
    kept: Kept,
    gradient: Tensor | Masked,
    gradients: Gradients,
    norm: Norm | None,
) -> Generator[into.Call, None, Left | None]:
    """Add the gradient of a convolution's input.

    Args:
        tools: as every step's.
        step: of the plan.
        kept: what forward has kept.
        gradient: of the result.
        gradients: on their way back.
        norm: the norm that has made the input, if there is one.

    Returns:
        What is left for the norm that has made the input, if the kernel can leave it.
    """
    (register,) = step.inputs
    if not gradients.wants(register):
        return None
    x, y = kept.x, kept.y
    if register == gradients.entry:
        span = gradients.pictures
        x = x[span]
        gradient = gradient.of(span) if isinstance(gradient, Masked) else gradient[span]
        y = None if y is None else y[span]
    grad_y, of_norm = gradient if isinstance(gradient, Masked) else (gradient, None)
    if norm is not None and kept.takes_norms:
        # Of the norm's own plane, which its mirror images are folded into.
        layer = hand_serving.layer_of(tools, step, norm.kept.x, norm.step.pad)
        name = hand_serving.loading(layer)
    elif of_norm is not None:
        layer = hand_serving.layer_of(tools, step, x, 0)
        name = hand_serving.loading(layer)
    else:
        name, layer = hand_serving.serving(tools, step, x, "gradient_of_input", None)
    if layer is None:
        of_x, _, _ = tools.gradients(step, x, y, grad_y, (True, False, False))
        if of_x is not None:
            gradients.add(register, of_x)
        return None
    layer, grad_y = _laid_out(layer, grad_y)
    left, beside, place = None, None, None
    if norm is not None and hand_serving.finishes(norm.kept.x):
        masked = kept.takes_norms and norm.masked
        left = Left(into.sums_of(name, layer), masked)
        beside = _norm_of_input(norm, gradients, left, 0 if kept.takes_norms else norm.step.pad)
        place = norm.place if masked else None
    if place is None:
        of_x = torch.empty_like(layer.x)
    else:
        of_x = place(layer.x.shape[1:], layer.dtype, layer.device, torch.channels_last)
    yield into.input_call(name, layer, grad_y, y, of_x, beside, of_norm)
    gradients.add(register, of_x)
    return left


def of_weight(
    tools: Tools, steps: Sequence[ConvStep], read: Read
) -> Generator[into.Call, None, None]:
    """Add the gradients of the weight and bias of a convolution, or of several alike, to theirs.

    Args:
        tools: as every step's.
        steps: of the plan.
        read: what is read of all of them, their images behind each other.
    """
    modules: list[Any] = [tools.modules[step.module] for step in steps]
    weight, bias = hand_serving.wanted(tools, steps[0])
    if not weight and not bias:
        return
    each = len(read.x) // len(steps)
    one = read if len(steps) == 1 else read._replace(x=read.x[:each])
    name, layer = hand_serving.serving_weight(tools, one)
    found: list[Tensor | None]
    if layer is None:
        needs = (False, weight, bias)
        _, *found = tools.gradients(steps[0], read.x, read.y, read.grad_y, needs)
    else:
        layer, grad_y = _laid_out(layer._replace(x=read.x), read.grad_y)
        call, *found = into.weight_call(
            name,
            layer,
            grad_y,
            read.y,
            weight=weight,
            bias=bias,
            norm=read.norm,
            of_norm=read.of_norm,
            groups=len(steps),
        )
        yield call
    for gradient, parameter in zip(found, ("weight", "bias"), strict=True):
        if gradient is not None:
            of_each = gradient if len(steps) > 1 else gradient[None]
            for module, own in zip(modules, of_each, strict=True):
                add_gradient(getattr(module, parameter), own)


def _laid_out(layer: Layer, gradient: Tensor) -> tuple[Layer, Tensor]:
    layout = layout_of(layer.x, layer.weight)
    x = layer.x.contiguous(memory_format=layout)
    return layer._replace(x=x), gradient.contiguous(memory_format=layout)


def _norm_of_input(norm: Norm, gradients: Gradients, left: Left, pad: int) -> NormOfInput:
    step = norm.step
    x, mean, rstd, weight, bias, _ = norm.kept
    skip = None if step.interior is None else gradients.of(step.interior)
    act = ACTIVATIONS.index(step.act)
    return NormOfInput(
        x,
        mean,
        rstd,
        weight,
        bias,
        act,
        step.negative_slope,
        pad,
        skip,
        left.sums,
        left.masked,
    )
