# SPDX-License-Identifier: MIT
"""Which convolutions and norms of a plan stand side by side, so that one can help the other."""

from __future__ import annotations

from collections import defaultdict

from cyclegan_fast.fusion.steps import ConvStep, NormStep, Plan, references


class Neighbours:
    """The neighbours in a plan, by numbers of its steps.

    Attributes:
        before_norm: convolutions whose result a norm alone reads.
        norm_before: convolution -> the norm whose result it alone reads, padded as it is, and of
            which everything else that is read is read after it, if anything is.
    """

    def __init__(self, plan: Plan) -> None:
        readers: dict[int, list[int]] = defaultdict(list)
        for i, step in enumerate(plan.steps):
            for register in step.inputs:
                readers[register].append(i)
        for register in references(plan.output):
            readers[register].append(len(plan.steps))
        norms = {s.output: i for i, s in enumerate(plan.steps) if isinstance(s, NormStep)}
        self.before_norm: set[int] = set()
        self.norm_before: dict[int, int] = {}
        for i, step in enumerate(plan.steps):
            if not isinstance(step, ConvStep):
                continue
            following = readers[step.output]
            if len(following) == 1 and following[0] < len(plan.steps):
                norm = plan.steps[following[0]]
                if isinstance(norm, NormStep) and norm.inputs[0] == step.output:
                    self.before_norm.add(i)
            j = norms.get(step.inputs[0])
            if (
                j is not None
                and readers[step.inputs[0]] == [i]
                and _apart(plan.steps[j], readers, i)
            ):
                self.norm_before[i] = j


def _apart(norm: object, readers: dict[int, list[int]], i: int) -> bool:
    """Whether the norm's view without its border is read after step i alone."""
    interior = norm.interior if isinstance(norm, NormStep) else None
    return interior is None or all(reader > i for reader in readers[interior])
