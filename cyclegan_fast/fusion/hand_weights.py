# SPDX-License-Identifier: MIT
"""Gradients of weights by hand: of all runs of a step at once, and of all layers that are alike.

Each layer's is taken when the last run has come by it. Where kernels of ours take it, and other
layers of the network are alike, it waits for them: all of them are one launch then, which has work
for a whole GPU without cutting the sum over pixels into parts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from cyclegan_fast.fusion import hand_conv, hand_reads, hand_serving
from cyclegan_fast.fusion.alike import Row
from cyclegan_fast.fusion.hand_reads import Read
from cyclegan_fast.fusion.hand_steps import Tools
from cyclegan_fast.ops import _into

# Those that take several layers in a launch.
OF_SEVERAL = ("rows", "implicit", "hopper")
Steps = Generator[_into.Call, None, None]


class Weights:
    """The gradients of a network's weights.

    Args:
        tools: as every step's.
        rows: the layers that are alike, by number of the step.
    """

    def __init__(self, tools: Tools, rows: dict[int, Row]) -> None:
        self._tools = tools
        self._rows = rows
        self._waiting: dict[int, dict[int, Read]] = defaultdict(dict)

    def add(self, i: int, of_runs: Sequence[Read]) -> Steps:
        """Take those of step i from what its runs have read, and those alike if it is the last."""
        groups = list(_joined(of_runs))
        row = self._rows.get(i)
        waits = row is not None and len(groups) == 1
        if row is None or not waits or self._served_by(groups[0]) not in OF_SEVERAL:
            for read in groups:
                yield from hand_conv.of_weight(self._tools, [read.step], read)
            return
        waiting = self._waiting[row.first]
        waiting[row.row] = groups[0]
        if len(waiting) == row.rows:
            yield from self._together(self._waiting.pop(row.first))

    def rest(self) -> Steps:
        """Take those that still wait."""
        while self._waiting:
            _, waiting = self._waiting.popitem()
            yield from self._together(waiting)

    def _served_by(self, read: Read) -> str:
        return hand_serving.serving_weight(self._tools, read, weight=False)[0]

    def _together(self, waiting: dict[int, Read]) -> Steps:
        reads = [waiting[row] for row in sorted(waiting)]
        steps = [read.step for read in reads]
        wanted = {hand_serving.wanted(self._tools, step) for step in steps}
        together = None
        if len(wanted) == len(set(map(self._served_by, reads))) == 1:
            together = hand_reads.of_layers(reads)
        if together is not None:
            yield from hand_conv.of_weight(self._tools, steps, together)
            return
        for read in reads:
            yield from hand_conv.of_weight(self._tools, [read.step], read)


def _joined(of_runs: Sequence[Read]) -> Iterator[Read]:
    """Yield what the runs have read, that of one kind and size as one."""
    groups: dict[Any, list[Read]] = defaultdict(list)
    for read in of_runs:
        norms = read.norm is None, read.of_norm is None
        groups[read.step.pad, read.x.shape[1:], read.pad, *norms].append(read)
    yield from map(hand_reads.of_runs, groups.values())
