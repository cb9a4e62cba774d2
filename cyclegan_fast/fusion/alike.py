# SPDX-License-Identifier: MIT
"""Which convolutions of a plan are alike, so that their weight gradients can be one launch."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from cyclegan_fast.fusion.neighbours import Neighbours
from cyclegan_fast.fusion.steps import ConvStep, NormStep, Plan
from cyclegan_fast.fusion.walk import Modules, parameter


class Row(NamedTuple):
    """The place of a convolution among those alike.

    Attributes:
        first: number of the first of their steps.
        row: which of them it is, in the plan's order.
        rows: how many they are.
    """

    first: int
    row: int
    rows: int


def rows(plan: Plan, modules: Modules, neighbours: Neighbours) -> dict[int, Row]:
    """Return the places of the convolutions between two norms of which there are several alike.

    Their weights have the same sizes, and what they do of the norms beside them, if they do, is the
    same. Their images may differ in size; they go apart then.
    """
    groups: dict[Any, list[int]] = defaultdict(list)
    for i, step in enumerate(plan.steps):
        between = i in neighbours.norm_before and i in neighbours.norm_behind
        if between and isinstance(step, ConvStep):
            before, behind = neighbours.norm_before[i], neighbours.norm_behind[i]
            norm = neighbours.norm(before)
            loaded = neighbours.need_not_write(before)
            options = norm.act, norm.negative_slope, _affine(norm, modules)
            masked = neighbours.need_not_write_gradient(behind)
            affine = _affine(neighbours.norm(behind), modules)
            what = _layer(step, modules), norm.pad, loaded and options, masked and affine
            groups[what].append(i)
    return {
        i: Row(alike[0], row, len(alike))
        for alike in groups.values()
        if len(alike) > 1
        for row, i in enumerate(alike)
    }


def _affine(norm: NormStep, modules: Modules) -> tuple[bool, ...]:
    paths = norm.weight, norm.bias
    return tuple(path is not None and parameter(modules, path) is not None for path in paths)


def _layer(step: ConvStep, modules: Modules) -> Any:
    module: Any = modules[step.module]
    weight = module.weight
    sizes = (tuple(weight.shape), weight.stride(), weight.dtype, module.stride, module.padding)
    return type(module), sizes, step.served, step.pad, step.act, step.use_bias
