# SPDX-License-Identifier: MIT
"""The interface of `HandWalk` for a network that has to run under autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from cyclegan_fast.fusion.hand import Steps
from cyclegan_fast.fusion.hand_runs import Part, Pass


class AutogradWalk:
    """A network in one step of training, each run of it a graph of its own.

    Args:
        net: the network, for its parameters.
        call: runs it.
        together: let neighbouring parts of one size, of which the same is asked, go through in one
            run.
    """

    def __init__(self, net: nn.Module, call: Callable[[Tensor], Tensor], *, together: bool) -> None:
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._call = call
        self._together = together

    def forward(self, parts: Sequence[Part]) -> Steps[Pass]:
        """Run pictures through the network; as HandWalk's, in one go."""
        yield from ()
        made = Pass([], [])
        for group in self._groups(parts):
            x = group[0].x if len(group) == 1 else torch.cat([part.x for part in group])
            leaf = x.detach().requires_grad_(group[0].picture)
            self._ask(group[0].weights)
            try:
                result = self._call(leaf)
            finally:
                self._ask(True)
            made.runs.append((group, leaf, result))
            made.outputs += result.detach().split([len(part.x) for part in group])
        return made

    def backward(self, of: Pass, gradients: Sequence[Tensor]) -> Steps[list[Tensor]]:
        """Take gradients; as HandWalk's, in one go."""
        yield from ()
        found: list[Tensor] = []
        given = iter(gradients)
        for group, leaf, result in of.runs:
            of_result = torch.cat([next(given) for _ in group])
            result.backward(of_result.to(result.dtype))
            if leaf.grad is not None:
                found += leaf.grad.split([len(part.x) for part in group])
        of.runs.clear()
        return found

    def _groups(self, parts: Sequence[Part]) -> list[list[Part]]:
        if not self._together:
            return [[part] for part in parts]
        asked = groupby(parts, key=lambda part: (part.x.shape[1:], part.weights, part.picture))
        return [list(group) for _, group in asked]

    def _ask(self, wanted: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(wanted)
