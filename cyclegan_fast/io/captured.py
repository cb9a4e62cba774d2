# SPDX-License-Identifier: MIT
"""A function of one batch as CUDA graphs, one for each shape that comes again and again.

Like the training step, a generator at batch 1 is some hundred kernels that the host cannot launch
as fast as a GPU runs them; a replay is one launch. Shapes that come rarely run plainly: to capture
costs more than it saves there.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Plain runs before a capture. The first makes lazily made buffers and lets the allocator settle, as
# a capture needs it; a shape that comes no more often is not worth one.
PLAIN_RUNS = 2
# Graphs that are kept; the one whose last use is longest ago makes room, and is rare again.
KEPT = 8


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: Tensor


class Captured:
    """Calls a function, by replay from the third batch of a shape on.

    The graphs share their working memory: on one stream only one of them runs at a time, so all of
    them need what the largest needs. Weights are read where they lie: change them in place.

    Args:
        function: of a tensor on the device; has no state and asks the device nothing.
        device: a GPU, the current one in every call.

    Attributes:
        replayed: batches that were replays.
        plain: batches that were not.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self.replayed = self.plain = 0
        self._function = function
        self._device = device
        self._runs: Counter[torch.Size] = Counter()
        self._graphs: OrderedDict[torch.Size, _Graph] = OrderedDict()
        self._pool: Any = None
        self._room = True

    @property
    def shapes(self) -> list[torch.Size]:
        """The shapes that are replayed now, the one used last at the end."""
        return list(self._graphs)

    def __call__(self, batch: Tensor) -> Tensor:
        """Return the function's result on the device.

        Args:
            batch: in pinned host memory, so that nobody waits for its copy.

        Returns:
            A tensor that the next call may overwrite, in the order of the stream.
        """
        graph = self._graphs.get(batch.shape)
        if graph is None and self._room and self._runs[batch.shape] >= PLAIN_RUNS:
            graph = self._capture(batch)
        if graph is None:
            self._runs[batch.shape] += 1
            self.plain += 1
            return self._plainly(batch)
        self._graphs.move_to_end(batch.shape)
        graph.given.copy_(batch, non_blocking=True)
        graph.graph.replay()
        self.replayed += 1
        return graph.made

    def _plainly(self, batch: Tensor) -> Tensor:
        try:
            return self._function(batch.to(self._device, non_blocking=True))
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
        self._forget(0)
        return self._function(batch.to(self._device, non_blocking=True))

    def _capture(self, batch: Tensor) -> _Graph | None:
        """Capture; None where the graphs have no room, after which all batches run plainly."""
        self._forget(KEPT - 1)
        try:
            given = torch.zeros(batch.shape, dtype=batch.dtype, device=self._device)
            if not self._graphs:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Other threads read and write pictures meanwhile; a capture is no concern of theirs.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                made = self._function(given)
        except torch.OutOfMemoryError:
            self._forget(0)
            self._room = False
            return None
        kept = self._graphs[batch.shape] = _Graph(graph, given, made)
        return kept

    def _forget(self, left: int) -> None:
        """Drop the graphs used longest ago until so many are left."""
        if len(self._graphs) <= left:
            return
        torch.cuda.current_stream(self._device).synchronize()  # none of them may be running
        while len(self._graphs) > left:
            shape, _ = self._graphs.popitem(last=False)
            self._runs[shape] = 0
        torch.cuda.empty_cache()
