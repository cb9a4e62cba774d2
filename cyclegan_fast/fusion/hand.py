# SPDX-License-Identifier: MIT
"""Walk a plan by hand, forward and backward: what autograd would do, with a whole step in view.

A walk knows that a network is run several times in a step, and what of each run is asked for. So
pictures of one size go through together even where gradients of the weights are wanted of some and
gradients of the picture of others, and each convolution's weight gradient is taken once, of all
runs, when the last of them comes by. For that, the inputs of convolutions and the gradients of
their results are written one run beside the other, by the kernels that make them.

Or it spares memory: forward keeps what goes from one residual block to the next, and backward runs
each block forward again, by the same kernels, before it walks back through it. Of what is made
again nothing is kept for the next run, so each run's weight gradients are taken by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion import hand_conv, hand_norm, hand_steps
from cyclegan_fast.fusion.hand_memory import Memory, joined
from cyclegan_fast.fusion.neighbours import Neighbours
from cyclegan_fast.fusion.segments import segments
from cyclegan_fast.fusion.steps import ConvStep, NormStep, Plan
from cyclegan_fast.fusion.walk import Modules
from cyclegan_fast.ops import _into
from cyclegan_fast.ops.reflect_conv2d.beside_norm import Moments

T = TypeVar("T")
# A walk that hands out each call of norms, and of convolutions that a kernel of ours does, goes on
# once that is done, and returns T in the end.
Steps = Generator[_into.Call, None, T]


class Part(NamedTuple):
    """Pictures that go through a network, and what is asked of their backward.

    Attributes:
        x: [N, C, H, W].
        weights: they count in the gradients of the weights.
        picture: the gradient of x itself is wanted.
    """

    x: Tensor
    weights: bool
    picture: bool


@dataclass
class Run:
    """Pictures that went through together, and what their backward reads."""

    parts: tuple[Part, ...]
    first: int  # of its pictures among those of the whole step
    kept: dict[int, Any] = field(default_factory=dict)  # by number of the step
    gradients: dict[int, Tensor] = field(default_factory=dict)  # of convolutions' results
    entered: dict[int, list[Any]] = field(default_factory=dict)  # registers, by a segment's start
    sums: dict[int, Tensor] = field(default_factory=dict)  # of norms, left by a convolution

    @property
    def sizes(self) -> list[int]:
        """Pictures of each part."""
        return [len(part.x) for part in self.parts]

    def span(self, wanted: Callable[[Part], bool]) -> slice:
        """Return the pictures, from the first to the last, of the parts that are wanted."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.parts))]
        chosen = [i for i, part in enumerate(self.parts) if wanted(part)]
        if not chosen:
            return slice(0, 0)
        return slice(ends[chosen[0]] - self.sizes[chosen[0]], ends[chosen[-1]])


@dataclass
class Pass:
    """What a forward leaves: a result for each part, without a graph, and the runs behind them."""

    outputs: list[Tensor]
    runs: list[Any]


def alone(steps: Steps[T]) -> T:
    """Go through a walk to its end, and return what it returns."""
    while True:
        try:
            call = next(steps)
        except StopIteration as done:
            return done.value
        _into.do(call)
        del call  # what it holds is not to live until the next one


def _by_itself(steps: Steps[T], device: torch.device) -> Steps[T]:
    """Let neither autograd nor autocast see a walk, whoever resumes it."""
    while True:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            try:
                call = next(steps)
            except StopIteration as done:
                return done.value
        yield call
        del call


class HandWalk:
    """A network in one step of training.

    Args:
        plan: of which `hand_steps.why_not` says nothing.
        modules: the network's modules by path.
        read: parameter -> the tensor that the arithmetic takes for it, detached.
        half: 16-bit dtype of the convolutions, or None for the network's own.
        images: pictures that all forward passes of the step will put through.
        together: let the parts of a pass go through in one run, where they have one size and the
            parts of which the same is asked follow on each other.
        again: let backward run residual blocks forward again, rather than keep what is in them; a
            network without any is walked as ever.
    """

    def __init__(
        self,
        plan: Plan,
        modules: Modules,
        read: Callable[[nn.Parameter], Tensor],
        half: torch.dtype | None,
        images: int,
        *,
        together: bool,
        again: bool = False,
    ) -> None:
        self._plan = plan
        self._neighbours = Neighbours(plan)
        self._segments = segments(plan) if again else (range(len(plan.steps)),)
        self._again = len(self._segments) > 1
        self._modules = modules
        self._tools = hand_steps.Tools(modules, read, half)
        self._memory = Memory(images)
        self._together = together
        self._runs: list[Run] = []  # in the order of their forward
        self._open = 0  # runs whose backward is still to come
        self._images = 0

    def forward(self, parts: Sequence[Part]) -> Steps[Pass]:
        """Run pictures through the network."""
        return _by_itself(self._forward_all(parts), parts[0].x.device)

    def backward(self, of: Pass, gradients: Sequence[Tensor]) -> Steps[list[Tensor]]:
        """Take the gradients of the pictures, and of the weights when this is the last pass.

        Args:
            of: a pass; each once.
            gradients: of its outputs, each of its output's shape.

        Returns:
            The gradients of the pictures of those parts of which they are wanted. Gradients of the
            weights are added to `parameter.grad`.
        """
        return _by_itself(self._backward_all(of, gradients), gradients[0].device)

    def _forward_all(self, parts: Sequence[Part]) -> Steps[Pass]:
        shapes = {part.x.shape[1:] for part in parts}
        groups = [tuple(parts)] if self._together and len(shapes) == 1 else [(p,) for p in parts]
        made = Pass([], [])
        for group in groups:
            run = Run(group, self._images)
            self._images += sum(run.sizes)
            self._runs.append(run)
            self._open += 1
            made.runs.append(run)
            whole = yield from self._forward(run)
            made.outputs += whole.split(run.sizes)
        return made

    def _backward_all(self, of: Pass, gradients: Sequence[Tensor]) -> Steps[list[Tensor]]:
        found: list[Tensor] = []
        given = iter(gradients)
        for run in of.runs:
            found += yield from self._backward(run, [next(given) for _ in run.parts])
        return found

    def _forward(self, run: Run) -> Steps[Tensor]:
        plan = self._plan
        registers: list[Any] = [None] * plan.registers
        registers[plan.inputs[0]] = self._input(run)
        for segment in self._segments:
            if self._again:
                run.entered[segment.start] = list(registers)
            yield from self._through(run, segment, registers, keep=not self._again)
        return registers[plan.output.index]

    def _through(
        self, run: Run, segment: range, registers: list[Any], *, keep: bool
    ) -> Steps[None]:
        left: dict[int, Moments | None] = {}  # by register
        for i in segment:
            step = self._plan.steps[i]
            if isinstance(step, NormStep):
                place, moments = self._place(i, run), left.pop(step.inputs[0], None)
                call, kept = hand_norm.forward(step, self._modules, registers, place, moments)
                yield call
                del call, moments
            elif isinstance(step, ConvStep):
                before_norm = i in self._neighbours.before_norm
                kept, left[step.output] = yield from hand_conv.forward(
                    self._tools, step, registers, before_norm=before_norm
                )
            else:
                kept = hand_steps.forward(self._tools, step, registers)
            if keep:
                run.kept[i] = kept
            del kept
            for register in step.frees:
                registers[register] = None

    def _input(self, run: Run) -> Tensor:
        x = run.parts[0].x
        channels_last = self._plan.memory_format == "channels_last" or (
            x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        )
        layout = torch.channels_last if channels_last else torch.contiguous_format
        dtype = self._tools.half or x.dtype
        whole = self._place(-1, run)(x.shape[1:], dtype, x.device, layout)
        for part, place in zip(run.parts, whole.split(run.sizes), strict=True):
            place.copy_(part.x)
        return whole

    def _backward(self, run: Run, given: list[Tensor]) -> Steps[list[Tensor]]:
        plan = self._plan
        pictures = run.span(lambda part: part.picture)
        learned = run.span(lambda part: part.weights)
        gradients = hand_steps.Gradients(plan.inputs[0], pictures, learned)
        gradients.add(plan.output.index, self._tools.joined_gradient(given))
        for segment in reversed(self._segments):
            if self._again:
                registers = run.entered.pop(segment.start)
                yield from self._through(run, segment, registers, keep=True)
                del registers
            yield from self._back(run, segment, gradients)
        self._open -= 1
        whole = gradients.take(plan.inputs[0])
        if whole is None:
            return []
        # The pictures of a span: those between two parts that are asked for are in it.
        sizes, wanted = run.sizes, [part.picture for part in run.parts]
        last = len(wanted) - wanted[::-1].index(True)
        span = slice(wanted.index(True), last)
        of_parts = zip(wanted[span], whole.split(sizes[span]), strict=True)
        return [gradient for want, gradient in of_parts if want]

    def _back(self, run: Run, segment: range, gradients: hand_steps.Gradients) -> Steps[None]:
        last = self._again or self._open == 1
        for i in reversed(segment):
            step = self._plan.steps[i]
            if isinstance(step, NormStep):
                place, sums = self._place(-2 - i, run), run.sums.pop(i, None)
                kept = run.kept.pop(i)
                yield from hand_norm.backward(step, self._modules, kept, gradients, place, sums)
                del kept
                continue
            if not isinstance(step, ConvStep):
                hand_steps.backward(self._tools, step, run.kept.pop(i), gradients)
                continue
            of_result = gradients.take(step.output)
            if of_result is None:
                continue
            run.gradients[i] = of_result
            if last:
                yield from self._weight_gradients(i, step)
            yield from self._of_input(run, i, step, gradients)
            if last:
                self._let_go(i)

    def _of_input(
        self, run: Run, i: int, step: ConvStep, gradients: hand_steps.Gradients
    ) -> Steps[None]:
        norm = None
        j = self._neighbours.norm_before.get(i)
        if j is not None and j in run.kept:
            before = self._plan.steps[j]
            norm = hand_conv.Norm(before, run.kept[j]) if isinstance(before, NormStep) else None
        sums = yield from hand_conv.of_input(
            self._tools, step, run.kept[i], run.gradients[i], gradients, norm
        )
        if j is not None and sums is not None:
            run.sums[j] = sums

    def _place(self, key: int, run: Run) -> hand_norm.Place:
        """Where a step writes for a run: key i for step i's result, -2 - i for its gradient."""
        n = sum(run.sizes)
        if self._again:  # what is beside it may live longer
            return lambda *like: Memory(n).take(key, 0, n, *like)
        return lambda *like: self._memory.take(key, run.first, n, *like)

    def _weight_gradients(self, i: int, step: ConvStep) -> Steps[None]:
        xs, ys, of_results = [], [], []
        for run in self._runs:
            span = run.span(lambda part: part.weights)
            if i not in run.gradients or span.start == span.stop:
                continue
            x, y = run.kept[i]
            xs.append(x[span])
            ys.append(None if y is None else y[span])
            of_results.append(run.gradients[i][span])
        for x, y, of_result in joined(xs, ys, of_results):
            yield from hand_conv.of_weight(self._tools, step, x, y, of_result)

    def _let_go(self, i: int) -> None:
        for run in self._runs:
            run.kept.pop(i, None)
            run.gradients.pop(i, None)
