# SPDX-License-Identifier: MIT
"""The whole training step as one CUDA graph: captured once, then replayed with new pictures.

At batch 1 a step is some thousand small kernels, and the host cannot launch them as fast as the
GPU runs them. A replay is one launch. The step itself does not know of it: `step.run` is a pure
function of tensors that stay where they are.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_fast import backend
from cyclegan_fast.errors import CaptureError
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
    if engine.ranks is not None and "nccl" not in engine.ranks.backend:
        return f"the ranks talk through {engine.ranks.backend}, and only NCCL can be captured"
    return None


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph, and what it reads and writes."""

    graph: torch.cuda.CUDAGraph
    given: Given
    decisions: Decisions
    names: list[str]  # of the losses
    values: Tensor


class CapturedStep:
    """Calls `step.run`, by replay from the fourth call with the same shapes on.

    The first calls are real steps too, on a side stream, as a capture needs them. A batch of
    another shape (a smaller last one) is run plainly, and the graph stays; where the other shape
    stays, it is captured anew in the graph's place. So it is where the back end's policy, a
    module's mode (train or eval) or a parameter's requires_grad is another one than before. What
    else a step does not read from the device is fixed: hooks, attributes of modules, PyTorch's own
    switches.

    Args:
        engine: whose tensors stay where they are; make a new CapturedStep when they were moved.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stream: torch.cuda.Stream | None = None
        self._graph: _Captured | None = None
        nets = [net for _, net in engine.networks.items()]
        self._modules = [module for net in nets for module in net.modules()]
        self._parameters = [parameter for net in nets for parameter in net.parameters()]
        self._kind: tuple[object, ...] | None = None  # of what the graph was captured with
        self._latest: tuple[object, ...] | None = None
        self._plain_calls = 0  # in a row, of the latest kind

    def __call__(self, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        """Train one step; arguments and result are those of `step.run`.

        Raises:
            CaptureError: the step cannot be captured. Nothing was trained; where the error is not
                `broken`, all is as it was before the call, and `step.run` can train the step.
        """
        kind = (given.kind(), self._settings())
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

    def _settings(self) -> tuple[object, ...]:
        """What a graph has fixed though it can be changed between two steps."""
        return (
            backend.policy(),
            tuple([module.training for module in self._modules]),
            tuple([parameter.requires_grad for parameter in self._parameters]),
        )

    def _plain(self, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        self._stream = self._stream or torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            losses = run(self._engine, given, decisions)
        torch.cuda.current_stream().wait_stream(self._stream)
        return losses

    def _capture(self, given: Given, decisions: Decisions) -> _Captured:
        engine = self._engine
        static = given.static()
        kept = Decisions(*(_clone(decision) for decision in decisions))
        if engine.halves is not None:
            engine.halves.refresh()  # what a capture copies, it does not copy now
        # Gradients of the plain steps would keep their memory beside the graph's own.
        engine.optimizer_G.zero_grad()
        engine.optimizer_D.zero_grad()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with backend.uncounted_on_error(), _recording(graph):
                losses = run(engine, static, kept)
                values = torch.stack(list(losses.values()))
        except Exception as error:
            reason = _reason(error)
        else:
            engine.optimizer_G.finish_capture()
            engine.optimizer_D.finish_capture()
            return _Captured(graph, static, kept, list(losses), values)
        # Here the error is gone, and with it all that its frames held of the graph's memory.
        del graph
        engine.optimizer_G.forget_capture()
        engine.optimizer_D.forget_capture()
        raise CaptureError(reason, broken=_broken())

    def _replay(self, captured: _Captured, given: Given, decisions: Decisions) -> dict[str, Tensor]:
        captured.given.take(given)
        for kept, decision in zip(captured.decisions, decisions, strict=True):
            if kept is not None and decision is not None:
                for static, rows in zip(kept, decision, strict=True):
                    static.copy_(rows, non_blocking=True)
        if self._engine.halves is not None:
            self._engine.halves.refresh()  # the graph reads copies, whoever changed the weights
        captured.graph.replay()
        # The next replay writes the same memory, and a caller may read its losses later.
        return dict(zip(captured.names, captured.values.clone().unbind(), strict=True))


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph) -> Iterator[None]:
    """Capture the block; where that fails, put back what PyTorch leaves as in a capture."""
    device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
    pool = torch.cuda.graph_pool_handle()
    chance = torch.get_rng_state()
    try:
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            yield
    except BaseException:
        # When CUDA refuses to end a capture, PyTorch's own clearing up does not come to pass: the
        # stream stays the current one, the allocator keeps the pool open, and the generator
        # believes that it draws for a graph.
        torch.cuda.set_stream(stream)
        with suppress(RuntimeError):  # the capture was ended, and the block itself had failed
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)
        generator = torch.cuda.default_generators[device]
        generator.graphsafe_set_state(generator.clone_state())
        torch.set_rng_state(chance)
        raise


def _reason(error: BaseException) -> str:
    """Return what went wrong first, and where in the Python code."""
    while error.__context__ is not None:
        error = error.__context__
    text = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    torchs = str(Path(torch.__file__).parent)
    own = [frame for frame in frames if not frame.filename.startswith(torchs)]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return text + where


def _broken() -> bool:
    """Whether CUDA answers with an error from now on."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _clone(decision: Decision | None) -> Decision | None:
    return None if decision is None else Decision(*(rows.clone() for rows in decision))
