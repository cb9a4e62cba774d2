# SPDX-License-Identifier: MIT
"""The steps of a plan by hand: each one's value, and the gradients of what it read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan_fast import backend
from cyclegan_fast.fusion.hand_reads import Masked
from cyclegan_fast.fusion.steps import ConvStep, ModuleStep, NormStep, Plan, Ref, Step
from cyclegan_fast.fusion.walk import Modules
from cyclegan_fast.fusion.walk import run as run_step
from cyclegan_fast.ops import reflect_conv2d
from cyclegan_fast.ops.instance_norm_act.autograd import STEM
from cyclegan_fast.ops.reflect_conv2d.layers import Layer
from cyclegan_fast.ops.reflect_conv2d.op import gradients as reflect_conv2d_gradients

aten = torch.ops.aten
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid)


def why_not(plan: Plan, modules: Modules, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return None if a plan can be walked by hand, else the reason, which names the step."""
    if len(plan.inputs) != 1 or not isinstance(plan.output, Ref):
        return "it takes or returns more than one tensor"
    if backend.resolve(STEM, device.type, dtype) == "reference":
        return "the reference back end runs under autograd alone"
    norms = {register for s in plan.steps if isinstance(s, NormStep) for register in _written(s)}
    for step in plan.steps:
        reason = _why_not_step(step, modules, norms)
        if reason is not None:
            return reason
    return None


def _why_not_step(step: Step, modules: Modules, norms: set[int]) -> str | None:
    if isinstance(step, ConvStep):
        module = modules[step.module]
        if type(module) not in (nn.Conv2d, nn.ConvTranspose2d):
            return f"{step.module} computes its weight, or has a forward of its own"
        if not step.served and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
            return f"{step.module} pads in a way that its library call does not"
        return None
    if isinstance(step, NormStep):
        # What the sum is where it broadcasts, or where dtypes differ, is PyTorch's to say.
        foreign = len(step.inputs) > 1 and step.inputs[1] not in norms
        return f"{step.members[0]} adds what no norm has made" if foreign else None
    if isinstance(step, ModuleStep):
        module = modules[step.module]
        plain = (
            type(module) in _ACTIVATIONS and not step.reason and step.args == (Ref(step.inputs[0]),)
        )
        falls = isinstance(module, nn.LeakyReLU) and module.negative_slope < 0
        return None if plain and not falls else f"{step.module} ({type(module).__name__})"
    of = getattr(step, "target", getattr(step, "members", ""))
    # Not a function itself: its text has an address.
    name = f"{of.__name__}()" if hasattr(of, "__name__") else of
    return f"{type(step).__name__} of {name}"


def _written(step: NormStep) -> tuple[int, ...]:
    return (step.output,) if step.interior is None else (step.output, step.interior)


@dataclass
class Gradients:
    """Gradients of registers on their way back.

    Attributes:
        entry: the register of the network's own input.
        pictures: of those pictures alone its gradient is wanted.
        learned: those pictures alone count in the gradients of parameters.
    """

    entry: int
    pictures: slice
    learned: slice

    def __post_init__(self) -> None:
        self._held: dict[int, Tensor] = {}
        self._masked: dict[int, Masked] = {}

    def wants(self, register: int) -> bool:
        """Whether anybody asks for a register's gradient."""
        return register != self.entry or self.pictures.start < self.pictures.stop

    def add(self, register: int, gradient: Tensor) -> None:
        """Add to a register's gradient; that of the network's input may be of all pictures."""
        if register == self.entry:
            if not self.wants(register):
                return
            if len(gradient) > self.pictures.stop - self.pictures.start:
                gradient = gradient[self.pictures]
        held = self._held.get(register)
        self._held[register] = gradient if held is None else held + gradient

    def leave(self, register: int, gradient: Masked) -> None:
        """Leave the gradient of a convolution's result to that convolution."""
        self._masked[register] = gradient

    def take_result(self, register: int) -> Tensor | Masked | None:
        """Return the gradient of a convolution's result, and forget it."""
        return self._masked.pop(register, None) or self.take(register)

    def of(self, register: int) -> Tensor | None:
        """Return what a register's gradient is by now."""
        return self._held.get(register)

    def take(self, register: int) -> Tensor | None:
        """Return a register's gradient, and forget it."""
        return self._held.pop(register, None)


class Tools:
    """What every step needs: the network's modules, and its parameters as they are computed with.

    Args:
        modules: by path.
        read: parameter -> the tensor that the arithmetic takes for it, detached.
        half: 16-bit dtype of the convolutions, or None for the network's own.
    """

    def __init__(
        self,
        modules: Modules,
        read: Callable[[nn.Parameter], Tensor],
        half: torch.dtype | None,
    ) -> None:
        self.modules = modules
        self.read = read
        self.half = half

    def convolution(self, step: ConvStep, x: Tensor) -> Tensor:
        """Return a convolution's result."""
        module: Any = self.modules[step.module]
        weight = self.read(module.weight)
        bias = self.read(module.bias) if step.use_bias else None
        if step.served:
            stride = module.stride[0]
            return reflect_conv2d(x, weight, bias, padding=step.pad, stride=stride, act=step.act)
        return aten.convolution(x, weight, bias, *_geometry(module))

    def result_of(
        self,
        step: ConvStep,
        layer: Layer,
        layout: torch.memory_format,
        place: Callable[..., Tensor] | None,
    ) -> Tensor:
        """Return memory for a convolution's result, in its place if it has one."""
        module: Any = self.modules[step.module]
        transposed = layer.kind == "transposed"
        channels = layer.weight.shape[transposed]
        sides = []
        for d, side in enumerate(layer.x.shape[2:]):
            kernel = layer.weight.shape[2 + d] - 2 * layer.padding
            if transposed:
                sides.append((side - 1) * layer.stride + kernel + module.output_padding[d])
            else:
                sides.append((side - kernel) // layer.stride + 1)
        if place is not None:
            return place((channels, *sides), layer.dtype, layer.device, layout)
        shape = (len(layer.x), channels, *sides)
        return torch.empty(shape, dtype=layer.dtype, device=layer.device, memory_format=layout)

    def gradients(
        self,
        step: ConvStep,
        x: Tensor,
        y: Tensor | None,
        of_result: Tensor,
        needs: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return those gradients of a convolution's input, weight and bias that are asked for."""
        module: Any = self.modules[step.module]
        weight = self.read(module.weight)
        if step.served:
            return reflect_conv2d_gradients(
                of_result, y, x, weight, padding=step.pad, stride=module.stride[0], needs=needs
            )
        sizes = [weight.shape[1] * module.groups if module.transposed else weight.shape[0]]
        of_x, of_weight, of_bias = aten.convolution_backward(
            of_result, x, weight, sizes if needs[2] else None, *_geometry(module), list(needs)
        )
        # oneDNN makes more than it is asked for.
        return (
            of_x if needs[0] else None,
            of_weight if needs[1] else None,
            of_bias if needs[2] else None,
        )

    def joined_gradient(self, parts: list[Tensor]) -> Tensor:
        """Return the gradients of a run's parts as one, in the run's arithmetic."""
        dtype = self.half or parts[0].dtype
        parts = [part.to(dtype) for part in parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def forward(tools: Tools, step: Step, registers: list[Any]) -> Any:
    """Compute a step into its register, and return what its backward reads.

    Norms and convolutions have modules of their own.
    """
    y = registers[step.output] = run_step(step, tools.modules, registers)
    return y


def backward(tools: Tools, step: Step, kept: Any, gradients: Gradients) -> None:
    """Add the gradient of what a step has read; not of a convolution or a norm."""
    of_y = gradients.take(step.output)
    if of_y is not None and isinstance(step, ModuleStep):
        gradients.add(step.inputs[0], _activation_backward(tools.modules[step.module], kept, of_y))


def add_gradient(given: nn.Parameter, gradient: Tensor) -> None:
    """Add to a parameter's gradient."""
    gradient = gradient.to(given.dtype)
    given.grad = gradient if given.grad is None else given.grad + gradient


def _activation_backward(module: Any, y: Tensor, of_y: Tensor) -> Tensor:
    """The gradient of an activation's input, from its result."""
    if isinstance(module, nn.Tanh):
        return aten.tanh_backward(of_y, y)
    if isinstance(module, nn.Sigmoid):
        return aten.sigmoid_backward(of_y, y)
    if isinstance(module, nn.LeakyReLU):
        return aten.leaky_relu_backward(of_y, y, module.negative_slope, True)
    return aten.threshold_backward(of_y, y, 0)


def _geometry(module: Any) -> tuple[Any, ...]:
    """Stride, padding, dilation, transposed, output padding and groups, as aten takes them."""
    output_padding = module.output_padding if module.transposed else (0, 0)
    return (
        module.stride,
        module.padding,
        module.dilation,
        module.transposed,
        output_padding,
        module.groups,
    )
