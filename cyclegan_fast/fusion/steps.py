# SPDX-License-Identifier: MIT
"""The plan of a network as data: steps over registers, and what must hold for it to be valid.

A register is an index into a list of values that lives as long as one walk. Modules, parameters and
buffers are named by their path in the live network and looked up when the step runs, so a plan
holds no tensor: it survives pickling, copying, moving and reloading of the network. Whoever walks
a plan (the autograd walker in walk.py, or an engine that runs forward and backward by hand) needs
nothing but this file and the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ref:
    """A register, where it stands inside the arguments of an ordinary step."""

    index: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step: reads registers, writes one, and lets those go that nobody reads later.

    A NormStep may write a second one, see there.

    Attributes:
        inputs: registers read, in the order the kind of step defines.
        output: register written.
        frees: registers that hold nothing of use after this step.
    """

    inputs: tuple[int, ...]
    output: int
    frees: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NormStep(Step):
    """``reflect_pad(act(instance_norm(x)) + residual, pad)``; inputs: x, then the residual if any.

    Attributes:
        weight: path of the scale, e.g. "model.2.weight"; the parameter itself may be None.
        bias: path of the shift, likewise.
        act: "none", "relu" or "leaky_relu".
        negative_slope: of leaky_relu.
        eps: added to the variance.
        pad: pixels mirrored on each side.
        interior: register for the view of the result without its border, where a skip connection
            reads that; or None.
        residual_in_place: the network adds with ``+=``, so the sum keeps x's dtype.
        only_batches: the norm is F.instance_norm, for which three dimensions are no image [C, H, W]
            but a sequence [N, C, L].
        members: what of the network it stands for, for people.
    """

    weight: str | None
    bias: str | None
    act: str = "none"
    negative_slope: float = 0.0
    eps: float = 1e-5
    pad: int = 0
    interior: int | None = None
    residual_in_place: bool = False
    only_batches: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PadStep(Step):
    """Reflection padding by ``pad`` pixels on each side.

    Attributes:
        pad: pixels mirrored on each side.
        members: what of the network it stands for, for people.
    """

    pad: int
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ConvStep(Step):
    """A Conv2d or ConvTranspose2d of torch.nn, with neither hooks nor parametrizations.

    Attributes:
        module: path of the convolution.
        use_bias: False where an instance norm alone reads the result and takes a constant away.
        served: reflect_conv2d computes it: a Conv2d without groups, dilation or zeros around the
            image, and of one stride both ways. Only then may there be a pad or an activation.
        pad: pixels mirrored on each side of its input.
        act: "none" or "tanh".
        members: what of the network it stands for, for people.
    """

    module: str
    use_bias: bool = True
    served: bool = False
    pad: int = 0
    act: str = "none"
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModuleStep(Step):
    """An ordinary step: call the module at a path as it is, hooks and all.

    Attributes:
        module: path of the module.
        args: positional arguments, registers as Ref.
        kwargs: keyword arguments, likewise, as pairs.
        reason: why it is ordinary, for people.
    """

    module: str
    args: Any = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class FunctionStep(Step):
    """An ordinary step: call a function or a tensor's method, or read an attribute of the network.

    Attributes:
        kind: "function", "method" (target names it, the first argument is the object) or
            "attribute" (target is its path).
        target: the function itself, or a name.
        args: positional arguments, registers as Ref.
        kwargs: keyword arguments, likewise, as pairs.
    """

    kind: str
    target: Any
    args: Any = ()
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Guard:
    """What was true of one module when the plan was made, and must be true when it is walked.

    Attributes:
        path: the module's path.
        parent: position of its parent in the plan's guards (-1 for the network itself).
        name: its name in the parent.
        type: its exact class.
        forward: its class's forward.
        special: hooks, an own forward or a compiled call: whatever else a call would run.
        children: names of its children, where the plan went through the module; else None.
        attributes: plain attributes on which its forward, or its fused step, may depend.
    """

    path: str
    parent: int
    name: str
    type: type
    forward: Any
    special: str
    children: tuple[str, ...] | None
    attributes: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Plan:
    """A network's forward as steps.

    Attributes:
        inputs: registers of the tensor arguments, in order.
        steps: what to do, in order.
        output: the result, registers as Ref inside whatever tuples, lists and dicts it has.
        registers: how many registers there are.
        memory_format: "channels_last" if 4-D inputs are to be converted to it, else "preserve".
        memory_format_reason: why it is not the one that was asked for, or "".
        dead_biases: paths of the convolution biases that no step reads.
        guards: under which conditions all this holds; the network itself comes first.
        unfused: (what, why) for every instance norm and reflection pad that stays as it is.
        ordinary: (what, why) for everything else that stays as it is, but convolutions; why is ""
            for what is none of the package's business.
    """

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    output: Any
    registers: int
    memory_format: str
    memory_format_reason: str = ""
    dead_biases: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    unfused: tuple[tuple[str, str], ...] = ()
    ordinary: tuple[tuple[str, str], ...] = ()

    @property
    def fused(self) -> tuple[NormStep | PadStep | ConvStep, ...]:
        """The steps that one of the package's ops carries out; not convolutions all alone."""
        return tuple(
            step
            for step in self.steps
            if isinstance(step, NormStep | PadStep)
            or (isinstance(step, ConvStep) and (step.pad > 0 or step.act != "none"))
        )


def written(step: Step) -> tuple[int, ...]:
    """Return the registers that a step writes."""
    if isinstance(step, NormStep) and step.interior is not None:
        return step.output, step.interior
    return (step.output,)


def references(value: Any) -> Iterator[int]:
    """Yield the registers inside an argument: any nest of tuples, lists, dicts and slices."""
    if isinstance(value, Ref):
        yield value.index
    elif isinstance(value, tuple | list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, slice):
        yield from references((value.start, value.stop, value.step))
