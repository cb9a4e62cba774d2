# SPDX-License-Identifier: MIT
"""Two walks beside each other: one network's convolutions in each branch of the step.

Where norms go in pairs, both walks stop at each of theirs, and the two calls are one launch;
between norms the branches are free. Otherwise they do not wait for each other at all.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cyclegan_fast.fusion.hand import Steps, T, alone
from cyclegan_fast.ops import _into
from cyclegan_fast.training.arrangement import Arrangement


class _Walk:
    """A walk up to its next call; `call` is None at its end, and then there is a result."""

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self.call: _into.Call | None = None
        self.done = False
        self.result: Any = None

    def go_on(self) -> None:
        self.call = None
        if self.done:
            return
        try:
            self.call = next(self._steps)
        except StopIteration as end:
            self.done, self.result = True, end.value


def beside(aside: Arrangement, first: Steps[T], second: Steps[T], *used: Tensor) -> tuple[T, T]:
    """Go through two walks to their ends.

    Args:
        aside: of the step.
        first: walks in the main branch.
        second: walks in the second one. What it makes must be named to `aside.join` before it is
            used.
        used: made in the main branch and used by the second walk.

    Returns:
        What the walks return.
    """
    if not aside.pair:
        with aside.second(*used):
            of_second = alone(second)
        return alone(first), of_second
    one, other = _Walk(first), _Walk(second)
    while True:
        # What the second branch allocates is freed and used again in it alone, after it has seen
        # the launch below; so no tensor of it has to be named to the allocator.
        with aside.second(*used):
            other.go_on()
        one.go_on()
        aside.join()
        _into.do(*(walk.call for walk in (one, other) if walk.call is not None))
        if one.done and other.done:
            return one.result, other.result
        used = ()
