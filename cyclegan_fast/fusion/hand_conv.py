# SPDX-License-Identifier: MIT
"""The convolutions of a plan by hand, each served as the table says (ops/reflect_conv2d/table.py).

The device's library does them at once. A call of kernels of ours is handed out before it is done,
so that whoever walks two networks can do both in one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast import backend
from cyclegan_fast.fusion.hand_steps import Gradients, Tools, add_gradient
from cyclegan_fast.fusion.steps import ConvStep, NormStep
from cyclegan_fast.ops import _common
from cyclegan_fast.ops.instance_norm_act.autograd import ACTIVATIONS
from cyclegan_fast.ops.instance_norm_act.autograd import STEM as NORM
from cyclegan_fast.ops.reflect_conv2d import into
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments, NormOfInput
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.op import layout_of
from cyclegan_fast.ops.reflect_conv2d.table import choose


class Kept(NamedTuple):
    """What backward reads.

    Attributes:
        x: the convolution's input.
        y: its result where its act is a tanh, else None.
    """

    x: Tensor
    y: Tensor | None


class Norm(NamedTuple):
    """The norm that has made a convolution's input, and alone has a gradient from it.

    Attributes:
        step: of the plan.
        kept: what hand_norm.forward has kept.
    """

    step: NormStep
    kept: Any


def forward(
    tools: Tools, step: ConvStep, registers: list[Any], *, before_norm: bool
) -> Generator[into.Call, None, tuple[Kept, Moments | None]]:
    """Fill a convolution's register.

    Returns:
        What backward reads; and where a norm alone reads the result, its moments, if the kernel can
        leave them.
    """
    x = _common.dense(registers[step.inputs[0]])
    ours = _ours(tools, step, x, "forward")
    moments = None
    if ours is None:
        y = tools.convolution(step, x)
    else:
        name, layer = ours
        layout = layout_of(x, layer.weight)
        layer = layer._replace(x=x.contiguous(memory_format=layout))
        y = tools.result_of(step, layer, layout)
        module: Any = tools.modules[step.module]
        bias = tools.read(module.bias) if step.use_bias else None
        left = before_norm and _finishes(y)
        tanh = step.act == "tanh"
        call, moments = into.forward_call(name, layer, bias, y, tanh=tanh, with_moments=left)
        yield call
    registers[step.output] = y
    return Kept(x, y if step.act == "tanh" else None), moments


def of_input(
    tools: Tools,
    step: ConvStep,
    kept: Kept,
    of_result: Tensor,
    gradients: Gradients,
    norm: Norm | None,
) -> Generator[into.Call, None, Tensor | None]:
    """Add the gradient of a convolution's input.

    Returns:
        The sums of the norm that has made the input, by chunks, if the kernel can leave them.
    """
    (register,) = step.inputs
    if not gradients.wants(register):
        return None
    x, y = kept
    if register == gradients.entry:
        span = gradients.pictures
        x, of_result = x[span], of_result[span]
        y = None if y is None else y[span]
    ours = _ours(tools, step, x, "gradient_of_input")
    if ours is None:
        of_x, _, _ = tools.gradients(step, x, y, of_result, (True, False, False))
        if of_x is not None:
            gradients.add(register, of_x)
        return None
    name, layer = ours
    layer, of_result = _laid_out(layer, of_result)
    of_x = torch.empty_like(layer.x)
    beside = None
    if norm is not None and _finishes(norm.kept[0]):
        beside = _norm_of_input(norm, gradients, into.sums_of(name, layer))
    yield into.input_call(name, layer, of_result, y, of_x, beside)
    gradients.add(register, of_x)
    return None if beside is None else beside.partial


def of_weight(
    tools: Tools, step: ConvStep, x: Tensor, y: Tensor | None, of_result: Tensor
) -> Generator[into.Call, None, None]:
    """Add the gradients of a convolution's weight and bias to theirs."""
    module: Any = tools.modules[step.module]
    wanted = [module.weight, module.bias if step.use_bias else None]
    weight, bias = (p is not None and p.requires_grad for p in wanted)
    if not weight and not bias:
        return
    ours = _ours(tools, step, x, "gradient_of_weight")
    if ours is None:
        _, *found = tools.gradients(step, x, y, of_result, (False, weight, bias))
    else:
        name, layer = ours
        layer, of_result = _laid_out(layer, of_result)
        call, *found = into.weight_call(name, layer, of_result, y, weight=weight, bias=bias)
        yield call
    for given, gradient in zip(wanted, found, strict=True):
        if given is not None and gradient is not None:
            add_gradient(given, gradient)


def _ours(tools: Tools, step: ConvStep, x: Tensor, direction: str) -> tuple[str, Layer] | None:
    """Return the implementation of ours that serves, and what it computes; None: none does."""
    module: Any = tools.modules[step.module]
    layer = _layer(module, step, x)
    name = "library" if layer is None else choose(direction, backend.policy(), layer)
    if layer is None or name == "library":
        return None
    # Read here and not for the table, which looks at sizes: reading may round the whole weight.
    return name, layer._replace(weight=_common.dense(tools.read(module.weight)))


def _layer(module: Any, step: ConvStep, x: Tensor) -> Layer | None:
    """Return what a step computes, or None if it is PyTorch's alone."""
    weight = module.weight
    if step.served:
        return Layer(x, weight, step.pad, module.stride[0])
    even = all(len(set(pair)) == 1 for pair in (module.stride, module.padding))
    if not even or set(module.dilation) != {1} or module.groups != 1:
        return None
    if module.transposed and not _within_strides(module):
        return None
    kind = "transposed" if module.transposed else "zeros"
    return Layer(x, weight, module.padding[0], module.stride[0], kind)


def _within_strides(module: nn.ConvTranspose2d) -> bool:
    """Whether the result is no larger than the stride times the input."""
    stride, padding = int(module.stride[0]), int(module.padding[0])
    return all(
        more <= stride + 2 * padding - kernel
        for more, kernel in zip(module.output_padding, module.kernel_size, strict=True)
    )


def _laid_out(layer: Layer, gradient: Tensor) -> tuple[Layer, Tensor]:
    layout = layout_of(layer.x, layer.weight)
    x = layer.x.contiguous(memory_format=layout)
    return layer._replace(x=x), gradient.contiguous(memory_format=layout)


def _finishes(x: Tensor) -> bool:
    """Whether the norm of x can begin with what a convolution has left: in channels_last alone."""
    if _common.memory_format(x) != torch.channels_last:
        return False
    return x.device.type == "cuda" or backend.resolve(NORM, x.device.type, x.dtype) == "triton"


def _norm_of_input(norm: Norm, gradients: Gradients, partial: Tensor) -> NormOfInput:
    step = norm.step
    x, mean, rstd, weight, bias, _ = norm.kept
    skip = None if step.interior is None else gradients.of(step.interior)
    act = ACTIVATIONS.index(step.act)
    return NormOfInput(
        x, mean, rstd, weight, bias, act, step.negative_slope, step.pad, skip, partial
    )
