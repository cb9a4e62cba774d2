# SPDX-License-Identifier: MIT
"""Measure each implementation of each convolution that a step of training makes, one by one.

A layer's implementations get the same operands, which are in the cache where it holds them, as in a
training; those are timed that give what the device's library gives.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cyclegan_fast.benchmark.ours import OursIteration
from cyclegan_fast.benchmark.timing import interleaved
from cyclegan_fast.ops.reflect_conv2d import into, library, table
from cyclegan_fast.ops.reflect_conv2d.layers import DIRECTIONS, Layer

aten = torch.ops.aten
# Of the largest value: what implementations may differ by, who add up in another order.
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 2e-3}  # with TF32
CALLS = 20  # in a graph: neither the host nor the clock's resolution is in the figure
Work = Callable[[], "tuple[Tensor, ...]"]


class Case(NamedTuple):
    """One direction of a layer, without memory.

    Attributes:
        direction: one of layers.DIRECTIONS.
        x: shape of the input.
        weight: shape of the weight.
        padding: on each side.
        stride: from window to window.
        kind: one of layers.KINDS.
        dtype: of all tensors.
        channels_last: their layout.
    """

    direction: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    padding: int
    stride: int
    kind: str
    dtype: torch.dtype
    channels_last: bool


class Measured(NamedTuple):
    """What a case took.

    Attributes:
        key: by which the table knows it.
        microseconds: of each implementation that serves it, medians.
        flops: multiplications and additions.
        excluded: implementation -> why it was not timed.
    """

    key: str
    microseconds: dict[str, float]
    flops: int
    excluded: dict[str, str]

    @property
    def fastest(self) -> str:
        """The implementation that took the least time."""
        return min(self.microseconds, key=lambda name: self.microseconds[name])


def cases_of_a_step(step: OursIteration) -> list[Case]:
    """Return the convolutions that a step asks the table for, each once, in the step's order."""
    found: dict[str, Case] = {}
    on_gpu = torch.device(step.config.device or "cpu").type == "cuda"

    def note(layer: Layer, direction: str, padding: str) -> str:
        if direction in DIRECTIONS:
            x, weight, pad, stride, kind = layer
            last = x.is_contiguous(memory_format=torch.channels_last)
            sizes = tuple(x.shape), tuple(weight.shape)
            case = Case(direction, *sizes, pad, stride, kind, x.dtype, last)
            found.setdefault(layer.key(direction), case)
        return padding if layer.padding and layer.kind == "reflect" else "library"

    # What pads while it loads reads other sizes: the library's picture is padded before.
    for padding in ("library", "implicit") if on_gpu else ("library",):
        with table.choosing(functools.partial(note, padding=padding)):
            step()
    return list(found.values())


def measure(
    case: Case,
    device: torch.device,
    rounds: int,
    peers: Callable[[Case, Layer, Tensor], dict[str, Work]] = lambda *_: {},
) -> Measured:
    """Time the implementations of a case, in turns.

    Args:
        case: what to compute.
        device: where.
        rounds: turns of each implementation.
        peers: from the case and its operands, the layer and its result's gradient, what else is to
            be timed, by name.
    """
    torch.manual_seed(0)
    layer, grad_y = operands(case, device)
    works: dict[str, Work] = {"library": by_library(case, layer, grad_y)}
    excluded = {}
    for name in table.LAUNCHED:
        reason = table.why_not(name, layer, case.direction)
        if reason is None:
            works[name] = _by_launch(name, case, layer, grad_y)
            reason = _why_unequal(works[name], works["library"], case.dtype)
        if reason is not None:
            excluded[name] = reason
            works.pop(name, None)
    works |= peers(case, layer, grad_y)
    contenders = {name: _many(work, device) for name, work in works.items()}
    times = interleaved(contenders, device.type, rounds=rounds)
    calls = CALLS if device.type == "cuda" else 1
    microseconds = {name: t["median"] / calls * 1e6 for name, t in times.items()}
    image = layer.x if case.kind == "transposed" else grad_y  # of which each pixel is a window
    flops = 2 * image.numel() // image.shape[1] * math.prod(case.weight)
    return Measured(layer.key(case.direction), microseconds, flops, excluded)


def operands(case: Case, device: torch.device) -> tuple[Layer, Tensor]:
    """Return random operands: the layer, and the gradient of its result."""
    layout = torch.channels_last if case.channels_last else torch.contiguous_format

    def random(shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
        made = torch.randn(shape, device=device) * scale
        return made.to(case.dtype).contiguous(memory_format=layout)

    x, weight = random(case.x), random(case.weight, math.prod(case.weight[1:]) ** -0.5)
    layer = Layer(x, weight, case.padding, case.stride, case.kind)
    return layer, random(tuple(_library_forward(case, layer).shape))


def geometry(case: Case) -> tuple[Any, ...]:
    """Stride, padding, dilation, transposed, output padding and groups, as aten takes them."""
    transposed = case.kind == "transposed"
    # So that the result has stride times the input's side, as in every network with such layers.
    more = [max(0, case.stride + 2 * case.padding - k) for k in case.weight[2:]]
    output_padding = [side % case.stride for side in more] if transposed else [0, 0]
    pairs = [case.stride] * 2, [case.padding] * 2, [1, 1]
    return *pairs, transposed, output_padding, 1


def _library_forward(case: Case, layer: Layer) -> Tensor:
    if case.kind == "reflect":
        return library.convolved(layer.x, layer.weight, None, case.padding, case.stride, tanh=False)
    return aten.convolution(layer.x, layer.weight, None, *geometry(case))


def by_library(case: Case, layer: Layer, grad_y: Tensor) -> Work:
    """Return the work of a case by the device's own library."""
    if case.direction == "forward":
        return lambda: (_library_forward(case, layer),)
    needs = (case.direction == "gradient_of_input", case.direction == "gradient_of_weight", False)
    x, weight = layer.x, layer.weight
    if case.kind == "reflect":
        sizes = (case.padding, case.stride)
        return lambda: _there(library.gradients(grad_y, None, x, weight, *sizes, needs), needs)
    how = (None, *geometry(case), list(needs))
    return lambda: _there(aten.convolution_backward(grad_y, x, weight, *how), needs)


def _there(made: tuple[Any, ...], needs: tuple[bool, ...]) -> tuple[Tensor, ...]:
    return tuple(gradient for gradient, need in zip(made, needs, strict=True) if need)


def _by_launch(name: str, case: Case, layer: Layer, grad_y: Tensor) -> Work:
    made: Tensor | None
    if case.direction == "forward":
        made = torch.empty_like(grad_y)
        call, _ = into.forward_call(name, layer, None, made, tanh=False, with_moments=False)
    elif case.direction == "gradient_of_input":
        made = torch.empty_like(layer.x)
        call = into.input_call(name, layer, grad_y, None, made, None)
    else:
        call, made, _ = into.weight_call(name, layer, grad_y, None, weight=True, bias=False)

    def work() -> tuple[Tensor, ...]:
        into.launch([call])
        return () if made is None else (made,)

    if made is not None:
        made.fill_(math.nan)  # memory that is used again may hold the right result
    return work


def _why_unequal(work: Work, right: Work, dtype: torch.dtype) -> str | None:
    for ours, theirs in zip(work(), right(), strict=True):
        largest = theirs.abs().max().item()
        difference = (ours.float() - theirs.float()).abs().max().item()
        if not difference <= TOLERANCE[dtype] * largest:
            return f"differs by {difference:.2g}, of values up to {largest:.2g}"
    return None


def _many(work: Work, device: torch.device) -> Callable[[], object]:
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            work()
    return graph.replay


def lines(found: list[Measured]) -> Iterator[str]:
    """Yield a line for each case: times, and the rate of the fastest."""
    for each in found:
        times = ", ".join(f"{name} {us:.1f}" for name, us in sorted(each.microseconds.items()))
        rate = each.flops / each.microseconds[each.fastest] / 1e6
        yield f"{each.key}\n  {times} us; {each.fastest}: {rate:.1f} TFLOP/s"
        yield from (
            f"  {name} is left out: it {why}"
            for name, why in each.excluded.items()
            if why.startswith("differs")
        )
