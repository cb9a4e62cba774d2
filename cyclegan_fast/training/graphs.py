# SPDX-License-Identifier: MIT
"""The whole training step as one CUDA graph: captured once, then replayed with new pictures.

At batch 1 a step is some thousand small kernels, and the host cannot launch them as fast as the
GPU runs them. A replay is one launch. The step itself does not know of it: `step.run` is a pure
function of tensors that stay where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan_fast.training.engine import Decisions, Engine
from cyclegan_fast.training.passes import Given
from cyclegan_fast.training.pool import Decision, RaggedPool
from cyclegan_fast.training.step import run

# Plain steps before the capture: cuDNN searches its algorithms in the first, lazily made buffers
# and the allocator settle in the second.
_WARMUP = 3


def why_not(engine: Engine, device: torch.device) -> str | None:
    """Return None if the engine's step can be captured, else the reason."""
    if device.type != "cuda":
        return f"a CUDA graph needs a GPU, and the run is on {device}"
    if isinstance(engine.pool_A, RaggedPool):
        return "pictures change their size (--preprocess none or scale_width)"
    return None


class CapturedStep:
    """Calls `step.run`, by replay from the fourth call with the same shapes on.

    The first calls are real steps too, on a side stream, as a capture needs them. A batch of
    another shape (a smaller last one) is run plainly, and the graph stays; where the other shape
    stays, it is captured anew in the graph's place.

    Args:
        engine: whose tensors stay where they are; make a new CapturedStep when they were moved.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._kind: tuple[object, ...] | None = None  # of what the graph was captured with
        self._latest: tuple[object, ...] | None = None
        self._plain_calls = 0  # in a row, of the latest kind

    def __call__(self, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        """Train one step; arguments and result are those of `step.run`."""
        kind = given.kind()
        if kind != self._latest:
            self._latest, self._plain_calls = kind, 0
        if self._graph is not None and kind == self._kind:
            return self._replay(self._graph, given, decisions)
        self._plain_calls += 1
        if self._plain_calls <= _WARMUP:
            return self._plain(given, decisions)
        self._graph = None  # its memory is free before the next one's is taken
        self._graph = self._capture(given, decisions)
        self._kind = kind
        return self._replay(self._graph, given, decisions)

    def _plain(self, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = run(self._engine, given, decisions)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _capture(self, given: Given, decisions: Decisions) -> torch.cuda.CUDAGraph:
        self._given = given.static()
        self._decisions = Decisions(*(_clone(decision) for decision in decisions))
        # Gradients of the plain steps would keep their memory beside the graph's own.
        self._engine.optimizer_G.zero_grad()
        self._engine.optimizer_D.zero_grad()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            losses = run(self._engine, self._given, self._decisions)
            self._values = torch.stack(list(losses.values()))
        self._names = list(losses)
        self._engine.optimizer_G.finish_capture()
        self._engine.optimizer_D.finish_capture()
        return graph

    def _replay(
        self, graph: torch.cuda.CUDAGraph, given: Given, decisions: Decisions
    ) -> dict[str, Tensor]:
        self._given.take(given)
        for kept, decision in zip(self._decisions, decisions, strict=True):
            if kept is not None and decision is not None:
                for static, rows in zip(kept, decision, strict=True):
                    static.copy_(rows, non_blocking=True)
        if self._engine.halves is not None:
            self._engine.halves.refresh()  # the graph reads copies, whoever changed the weights
        graph.replay()
        # The next replay writes the same memory, and a caller may read its losses later.
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))


def _clone(decision: Decision | None) -> Decision | None:
    return None if decision is None else Decision(*(rows.clone() for rows in decision))
