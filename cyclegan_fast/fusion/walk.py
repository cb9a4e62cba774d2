# SPDX-License-Identifier: MIT
"""Walk a plan forward through autograd: what an accelerated network's forward does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan_fast import backend
from cyclegan_fast.fusion import half_weights
from cyclegan_fast.fusion.steps import (
    ConvStep,
    FunctionStep,
    ModuleStep,
    NormStep,
    PadStep,
    Plan,
    Ref,
    Step,
)
from cyclegan_fast.ops import (
    instance_norm_act,
    instance_norm_act_reference,
    reflect_conv2d,
    reflect_pad2d,
)
from cyclegan_fast.ops.instance_norm_act import instance_norm_act_and_interior

Modules = Mapping[str, nn.Module]


def walk(plan: Plan, modules: Modules, tensors: tuple[Tensor, ...]) -> Any:
    """Compute a network's result from its plan.

    Args:
        plan: the plan.
        modules: the network's modules by path, see guard.bind.
        tensors: the tensor arguments, in order.

    Returns:
        What the network's own forward returns. Where inputs were converted to channels_last, 4-D
        results are contiguous again, as they would have been without the plan.
    """
    registers: list[Any] = [None] * plan.registers
    converted = False
    for register, tensor in zip(plan.inputs, tensors, strict=True):
        if plan.memory_format == "channels_last" and _gains_from_channels_last(tensor):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
            converted = True
        registers[register] = tensor
    for step in plan.steps:
        if isinstance(step, NormStep):
            registers[step.output], interior = _norm(step, modules, registers)
            if step.interior is not None:
                registers[step.interior] = interior
        else:
            registers[step.output] = run(step, modules, registers)
        for register in step.frees:
            registers[register] = None
    output = fill(plan.output, registers)
    return _contiguous(output) if converted else output


def without_tanh(plan: Plan, modules: Modules) -> Plan | None:
    """Return the plan up to a tanh that makes the result alone, or None if it does not end so."""
    *steps, last = plan.steps
    if plan.output != Ref(last.output):
        return None
    if isinstance(last, ConvStep) and last.act == "tanh":
        return dataclasses.replace(plan, steps=(*steps, dataclasses.replace(last, act="none")))
    if isinstance(last, ModuleStep) and type(modules[last.module]) is nn.Tanh and not last.reason:
        return dataclasses.replace(plan, steps=tuple(steps), output=Ref(last.inputs[0]))
    return None


def run(step: Step, modules: Modules, registers: list[Any]) -> Any:
    """Compute the value of a step of any kind but NormStep."""
    if isinstance(step, ConvStep):
        return _convolution(step, modules[step.module], registers[step.inputs[0]])
    if isinstance(step, PadStep):
        return _pad(registers[step.inputs[0]], step.pad)
    if isinstance(step, ModuleStep):
        args = fill(step.args, registers)
        kwargs = {name: fill(value, registers) for name, value in step.kwargs}
        return modules[step.module](*args, **kwargs)
    if isinstance(step, FunctionStep):
        return _function(step, modules, registers)
    raise TypeError(f"walk: step must be one of steps.py, got {type(step).__name__}")


def parameter(modules: Modules, path: str) -> Any:
    """Return what the network has at a dotted path that ends in an attribute."""
    owner, _, name = path.rpartition(".")
    return getattr(modules[owner], name)


def fill(value: Any, registers: list[Any]) -> Any:
    """Return an argument with registers put in for their references."""
    if isinstance(value, Ref):
        return registers[value.index]
    if isinstance(value, tuple):
        return tuple([fill(item, registers) for item in value])
    if isinstance(value, list):
        return [fill(item, registers) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, registers) for key, item in value.items()}
    if isinstance(value, slice):
        parts = [fill(part, registers) for part in (value.start, value.stop, value.step)]
        return slice(*parts)
    return value


def _norm(step: NormStep, modules: Modules, registers: list[Any]) -> tuple[Tensor, Tensor | None]:
    """Return the step's result, and its interior where the step asks for it."""
    weight, bias = (
        None if path is None else parameter(modules, path) for path in (step.weight, step.bias)
    )
    x, *rest = (registers[register] for register in step.inputs)
    residual = rest[0] if rest else None
    if x.dim() != 3 or step.only_batches:
        return _norm_of_batch(step, weight, bias, x, residual)
    # torch.nn takes an image without a batch.
    lifted = isinstance(residual, Tensor) and residual.dim() == 3
    y, interior = _norm_of_batch(step, weight, bias, x[None], rest[0][None] if lifted else residual)
    return y[0], None if interior is None else interior[0]


def _norm_of_batch(
    step: NormStep, weight: Tensor | None, bias: Tensor | None, x: Tensor, residual: Any
) -> tuple[Tensor, Tensor | None]:
    together = residual is None or _addable(step, x, residual)
    options: dict[str, Any] = {
        "act": step.act,
        "negative_slope": step.negative_slope,
        "residual": residual if together else None,
        "eps": step.eps,
    }
    with_interior = step.interior is not None
    if together and with_interior and x.dim() == 4:
        return instance_norm_act_and_interior(x, weight, bias, pad=step.pad, **options)
    op = instance_norm_act if x.dim() == 4 else instance_norm_act_reference
    pad = step.pad if together and not with_interior else 0
    y = op(x, weight, bias, pad=pad, **options)
    if not together:
        # A sum that broadcasts, or that PyTorch would promote to another dtype, stays PyTorch's.
        y = y.add_(residual) if step.residual_in_place else y + residual
    return (y, None) if pad == step.pad else (_pad(y, step.pad), y)


def _addable(step: NormStep, x: Tensor, residual: Any) -> bool:
    return (
        isinstance(residual, Tensor)
        and residual.shape == x.shape
        and (residual.dtype == x.dtype or step.residual_in_place)
    )


def _pad(x: Tensor, pad: int) -> Tensor:
    return reflect_pad2d(x[None], pad)[0] if x.dim() == 3 else reflect_pad2d(x, pad)


def _convolution(step: ConvStep, module: Any, x: Tensor) -> Tensor:
    if type(module) not in (nn.Conv2d, nn.ConvTranspose2d):
        return module(x)  # a forward of its own, as a parametrized weight has
    weight = half_weights.read(module.weight)
    bias = half_weights.read(module.bias) if step.use_bias else None
    if step.served:
        options: dict[str, Any] = {
            "padding": step.pad,
            "stride": module.stride[0],
            "act": step.act,
        }
        if x.dim() == 3:  # torch.nn takes an image without a batch
            return reflect_conv2d(x[None], weight, bias, **options)[0]
        return reflect_conv2d(x, weight, bias, **options)
    if module.transposed:
        return F.conv_transpose2d(
            x,
            weight,
            bias,
            module.stride,
            module.padding,
            module.output_padding,
            module.groups,
            module.dilation,
        )
    if module.padding_mode != "zeros":
        return module._conv_forward(x, weight, bias)
    return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def _function(step: FunctionStep, modules: Modules, registers: list[Any]) -> Any:
    if step.kind == "attribute":
        return parameter(modules, step.target)
    args = fill(step.args, registers)
    kwargs = {name: fill(value, registers) for name, value in step.kwargs}
    if step.kind == "method":
        return getattr(args[0], step.target)(*args[1:], **kwargs)
    return step.target(*args, **kwargs)


def _gains_from_channels_last(tensor: Tensor) -> bool:
    return (
        tensor.dim() == 4
        and tensor.is_floating_point()
        and not tensor.is_contiguous(memory_format=torch.channels_last)
        # PyTorch's own instance norm would turn everything back at each of its calls.
        and backend.resolve("instance_norm_act", tensor.device.type, tensor.dtype) != "reference"
    )


def _contiguous(value: Any) -> Any:
    """Return a result with its images contiguous, whatever nest of containers it is."""
    if isinstance(value, Tensor):
        return value.contiguous() if value.dim() == 4 else value
    if isinstance(value, tuple):
        return tuple([_contiguous(item) for item in value])
    if isinstance(value, list):
        return [_contiguous(item) for item in value]
    if isinstance(value, dict):
        return {key: _contiguous(item) for key, item in value.items()}
    return value
