# SPDX-License-Identifier: MIT
"""Where a plan can be cut, so that a walk keeps what crosses the cuts and makes the rest again."""

from __future__ import annotations

from cyclegan_fast.fusion.steps import NormStep, Plan, Step, references, written


def segments(plan: Plan) -> tuple[range, ...]:
    """Return a plan's steps in stretches, cut where a residual block begins or ends.

    Such a place is a norm that adds, or that is added later, after which nothing else is of use:
    what it has written is all that the rest of the network reads. Between two of them lies a block;
    what comes before the first and after the last is a stretch of its own.

    Args:
        plan: of one network.

    Returns:
        Step numbers, in order, each step once; one stretch where there is no block.
    """
    added = {r for s in plan.steps if isinstance(s, NormStep) for r in s.inputs[1:]}
    ends = [
        i + 1
        for i, step in enumerate(plan.steps[:-1])
        if isinstance(step, NormStep)
        and (len(step.inputs) > 1 or added & set(written(step)))
        and _read_later(plan, i) <= set(written(step))
    ]
    bounds = [0, *ends, len(plan.steps)]
    return tuple(range(first, end) for first, end in zip(bounds, bounds[1:], strict=False))


def _read_later(plan: Plan, i: int) -> set[int]:
    """Registers that hold something after step i and are read after it."""
    before: tuple[Step, ...] = plan.steps[: i + 1]
    there = set(plan.inputs) | {register for step in before for register in written(step)}
    read = {register for step in plan.steps[i + 1 :] for register in step.inputs}
    return there & (read | set(references(plan.output)))
