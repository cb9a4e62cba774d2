# SPDX-License-Identifier: MIT
"""Which convolutions and norms of a plan stand side by side, so that one can help the other."""

from __future__ import annotations

from collections import defaultdict

from cyclegan_fast.fusion.steps import ConvStep, NormStep, Plan, references


class Neighbours:
    """The neighbours in a plan, by numbers of its steps.

    Attributes:
        norm_behind: convolution -> the norm that alone reads its result.
        norm_before: convolution -> the norm whose result it alone reads, padded as it is, and of
            which everything else that is read is read after it, if anything is.
        entry: the convolution that alone reads the network's input, if there is one, it is served
            and it pads.
        convolution_before: norm_behind the other way round.
        reader: norm_before the other way round.
    """

    def __init__(self, plan: Plan) -> None:
        self._steps = plan.steps
        readers: dict[int, list[int]] = defaultdict(list)
        for i, step in enumerate(plan.steps):
            for register in step.inputs:
                readers[register].append(i)
        for register in references(plan.output):
            readers[register].append(len(plan.steps))
        norms = {s.output: i for i, s in enumerate(plan.steps) if isinstance(s, NormStep)}
        self.norm_behind: dict[int, int] = {}
        self.norm_before: dict[int, int] = {}
        for i, step in enumerate(plan.steps):
            if not isinstance(step, ConvStep):
                continue
            following = readers[step.output]
            if len(following) == 1 and following[0] < len(plan.steps):
                norm = plan.steps[following[0]]
                if isinstance(norm, NormStep) and norm.inputs[0] == step.output:
                    self.norm_behind[i] = following[0]
            j = norms.get(step.inputs[0])
            if (
                j is not None
                and readers[step.inputs[0]] == [i]
                and _apart(plan.steps[j], readers, i)
            ):
                self.norm_before[i] = j
        of_input = readers[plan.inputs[0]] if plan.inputs else []
        self.entry: int | None = None
        for i, step in enumerate(plan.steps):
            pads = isinstance(step, ConvStep) and step.served and step.pad > 0
            if pads and of_input == [i]:
                self.entry = i
        self.convolution_before = {j: i for i, j in self.norm_behind.items()}
        self.reader = {j: i for i, j in self.norm_before.items()}

    def norm(self, j: int) -> NormStep:
        """Return step j, a norm."""
        step = self._steps[j]
        if not isinstance(step, NormStep):
            raise TypeError(f"step {j} must be a norm, got {type(step).__name__}")
        return step

    def convolution(self, i: int) -> ConvStep:
        """Return step i, a convolution."""
        step = self._steps[i]
        if not isinstance(step, ConvStep):
            raise TypeError(f"step {i} must be a convolution, got {type(step).__name__}")
        return step

    def need_not_write(self, j: int) -> bool:
        """Whether the convolution behind norm j could do it while it loads, so that it is not done.

        Nobody else reads what it makes, and nothing is added to it.
        """
        norm = self.norm(j)
        alone = norm.interior is None and len(norm.inputs) == 1
        return alone and j in self.reader and j in self.convolution_before

    def need_not_write_gradient(self, j: int) -> bool:
        """Whether the convolution before norm j could do its backward while it loads.

        The gradient at the norm's own result, masked, is then all that is written; it is that of
        what was added too, where nothing masks it.
        """
        norm = self.norm(j)
        plain = len(norm.inputs) == 1 or norm.act == "none"
        return plain and j in self.reader and j in self.convolution_before


def _apart(norm: object, readers: dict[int, list[int]], i: int) -> bool:
    """Whether the norm's view without its border is read after step i alone."""
    interior = norm.interior if isinstance(norm, NormStep) else None
    return interior is None or all(reader > i for reader in readers[interior])
