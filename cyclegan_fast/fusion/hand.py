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
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion import (
    alike,
    hand_conv,
    hand_entry,
    hand_norm,
    hand_reads,
    hand_serving,
    hand_steps,
)
from cyclegan_fast.fusion.hand_memory import Memory
from cyclegan_fast.fusion.hand_runs import Part, Pass, Run
from cyclegan_fast.fusion.hand_weights import Weights
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
        self._padded: dict[torch.Size, int] = {}  # pixels around pictures, by their size
        # For kernels that take several layers: elsewhere memory is better let go layer by layer.
        joins = not self._again and hand_serving.may_launch(modules)
        self._rows = alike.rows(plan, modules, self._neighbours) if joins else {}
        self._weights = Weights(self._tools, self._rows)
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
        place = self._place("input", -1, run)
        registers[plan.inputs[0]] = hand_entry.enter(
            self._tools, plan, self._neighbours, run, place, self._padded
        )
        for segment in self._segments:
            if self._again:
                run.entered[segment.start] = list(registers)
            yield from self._through(run, segment, registers, keep=not self._again)
        return registers[plan.output.index]

    def _through(
        self, run: Run, segment: range, registers: list[Any], *, keep: bool
    ) -> Steps[None]:
        left: dict[int, Moments | None] = {}  # by register
        kept: Any
        for i in segment:
            step = run.steps.get(i, self._plan.steps[i])
            if isinstance(step, NormStep):
                moments = left.pop(step.inputs[0], None)
                loaded = moments is not None and self._loads(i, registers)
                call, kept = hand_norm.forward(
                    step, self._modules, registers, self._places(i, run), moments, loaded=loaded
                )
                yield call
                del call, moments
            elif isinstance(step, ConvStep):
                j, behind = self._neighbours.norm_before.get(i), self._neighbours.norm_behind.get(i)
                kept, left[step.output] = yield from hand_conv.forward(
                    self._tools,
                    step,
                    registers,
                    pad=None if j is None else self._neighbours.norm(j).pad,
                    place=None if behind is None else self._place("y", i, run),
                )
            else:
                kept = hand_steps.forward(self._tools, step, registers)
            if keep:
                run.kept[i] = kept
            del kept
            for register in step.frees:
                registers[register] = None

    def _loads(self, j: int, registers: list[Any]) -> bool:
        """Whether the convolution behind norm j does it while it loads."""
        if not self._neighbours.need_not_write(j):
            return False
        norm, i = self._neighbours.norm(j), self._neighbours.reader[j]
        reader = self._neighbours.convolution(i)
        return hand_serving.loads_norms(self._tools, reader, registers[norm.inputs[0]], norm.pad)

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
        whole = hand_entry.of_pictures(run, whole)
        # The pictures of a span: those between two parts that are asked for are in it.
        sizes, wanted = run.sizes, [part.picture for part in run.parts]
        last = len(wanted) - wanted[::-1].index(True)
        span = slice(wanted.index(True), last)
        of_parts = zip(wanted[span], whole.split(sizes[span]), strict=True)
        return [gradient for want, gradient in of_parts if want]

    def _back(self, run: Run, segment: range, gradients: hand_steps.Gradients) -> Steps[None]:
        last = self._again or self._open == 1
        for i in reversed(segment):
            step = run.steps.get(i, self._plan.steps[i])
            if isinstance(step, NormStep):
                places, left = self._places(i, run), run.left.pop(i, None)
                kept = run.kept.pop(i)
                sums, masked = (None, False) if left is None else left
                yield from hand_norm.backward(
                    step, self._modules, kept, gradients, places, sums, masked=masked
                )
                del kept
                continue
            if not isinstance(step, ConvStep):
                hand_steps.backward(self._tools, step, run.kept.pop(i), gradients)
                continue
            of_result = gradients.take_result(step.output)
            if of_result is None:
                continue
            run.gradients[i] = of_result
            if last:
                yield from self._weights.add(i, self._read(i))
            yield from self._of_input(run, i, step, gradients)
            if last:
                self._let_go(i)
        if last:
            yield from self._weights.rest()

    def _of_input(
        self, run: Run, i: int, step: ConvStep, gradients: hand_steps.Gradients
    ) -> Steps[None]:
        norm = None
        j = self._neighbours.norm_before.get(i)
        if j is not None and j in run.kept:
            masked, before = False, self._neighbours.convolution_before.get(j)
            if before in run.kept and self._neighbours.need_not_write_gradient(j):
                masked = run.kept[before].takes_norms
            place = self._places(j, run)("gradient")
            norm = hand_conv.Norm(self._neighbours.norm(j), run.kept[j], masked, place)
        left = yield from hand_conv.of_input(
            self._tools, step, run.kept[i], run.gradients[i], gradients, norm
        )
        if j is not None and left is not None:
            run.left[j] = left

    def _places(self, j: int, run: Run) -> hand_norm.Places:
        """Where norm j writes: for the convolutions on both sides, beside those alike."""
        before = self._neighbours.convolution_before.get(j)
        reader = self._neighbours.reader.get(j)

        def place(kind: str) -> hand_norm.Place:
            owner = reader if kind == "result" else before
            return self._place(kind, ~j if owner is None else owner, run)

        return place

    def _place(self, kind: str, i: int, run: Run) -> hand_norm.Place:
        """Where something of a kind is written for convolution i of a run."""
        n = sum(run.sizes)
        row = self._rows.get(i, alike.Row(i, 0, 1))
        key = kind, row.first
        if self._again:  # what is beside it may live longer
            return lambda *like: Memory(n).take(key, row, 0, n, *like)
        return lambda *like: self._memory.take(key, row, run.first, n, *like)

    def _read(self, i: int) -> list[hand_reads.Read]:
        """Return what all runs have left for the gradient of weight i."""
        found = []
        for run in self._runs:
            span = run.span(lambda part: part.weights)
            if i in run.gradients and span.start < span.stop:
                step = run.steps.get(i, self._neighbours.convolution(i))
                found.append(hand_reads.of_run(step, run.kept[i], run.gradients[i], span))
        return found

    def _let_go(self, i: int) -> None:
        for run in self._runs:
            run.kept.pop(i, None)
            run.gradients.pop(i, None)
