# SPDX-License-Identifier: MIT
"""Pictures on their way through a network by hand, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from cyclegan_fast.fusion.hand_conv import Left
from cyclegan_fast.fusion.hand_reads import Masked
from cyclegan_fast.fusion.steps import ConvStep


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
    gradients: dict[int, Tensor | Masked] = field(default_factory=dict)  # of convolutions' results
    entered: dict[int, list[Any]] = field(default_factory=dict)  # registers, by a segment's start
    steps: dict[int, ConvStep] = field(default_factory=dict)  # in the place of the plan's
    left: dict[int, Left] = field(default_factory=dict)  # for norms, by a convolution's backward

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
